"""Images made from real ones: strength, kept regions, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from PIL import Image

from semsynth.core.errors import UserError
from semsynth.data.labels import LabelSet
from semsynth.diffusion.config import DiffusionConfig, SamplerSettings
from semsynth.models.config import ModelConfig
from semsynth.models.sdm.unet import UNetOutput
from semsynth.pipelines.formats.model_file import ModelFile, build_network
from semsynth.pipelines.from_image import FromImage, soft_region
from semsynth.pipelines.pipeline import SemanticDiffusionPipeline

New = Callable[..., Any]


def make_image(height: int = 16, width: int = 24, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def make_region(height: int = 16, width: int = 24) -> np.ndarray:
    region = np.zeros((height, width), bool)
    region[3:8, 5:10] = True  # no borders of Haar blocks
    return region


def call(pipe: Any, mask: np.ndarray, **kwargs: Any) -> np.ndarray:
    kwargs = {"seeds": [5], "num_inference_steps": 4, "output_type": "np", **kwargs}
    found = pipe(mask, **kwargs).images
    return np.rint(found * 255).astype(np.uint8)


def count_passes(pipe: Any, *args: Any, **kwargs: Any) -> int:
    passes: list[int] = []
    handle = pipe.unet.register_forward_hook(lambda *_: passes.append(1))
    call(pipe, *args, **kwargs)
    handle.remove()
    return len(passes)


def perfect(pipe: Any, image: np.ndarray) -> None:
    """Make the network one that always predicts this image."""
    clean = torch.from_numpy(image / 127.5 - 1).permute(2, 0, 1)[None].float()
    latent = pipe.codec.encode(clean)
    pipe.unet.forward = lambda x, *_: UNetOutput(sample=latent.expand_as(x))


@pytest.mark.parametrize("evaluations", [0, 1, 4])
def test_strength_1_is_plain_generation_to_the_bit(
    evaluations: int, new_pipe: New, new_masks: New
) -> None:
    pipe, masks, image = new_pipe(evaluations=evaluations), new_masks(2), make_image()
    plain = call(pipe, masks, seeds=[5, 6])
    found = call(pipe, masks, seeds=[5, 6], image=image, strength=1)
    assert np.array_equal(found, plain)
    settings = SamplerSettings(steps=4)
    real = FromImage(np.stack([image] * 2), 1.0)
    assert np.array_equal(
        pipe.generate(masks, [5, 6], settings, None, real),
        pipe.generate(masks, [5, 6], settings),
    )


def test_call_and_generate_make_the_same_image(pipe: Any, new_masks: New) -> None:
    mask, image, region = new_masks(1), make_image(), make_region()
    found = call(pipe, mask[0], image=image, strength=0.5, keep=region)
    real = FromImage(image[None], 0.5, region[None])
    assert np.array_equal(pipe.generate(mask, [5], SamplerSettings(steps=4), None, real), found)


@pytest.mark.parametrize(
    ("evaluations", "steps", "strength", "passes"),
    [
        (0, 10, 0.5, 5),
        (0, 10, 0.29, 2),
        (0, 10, 0.01, 1),
        (1, 1, 0.5, 1),
        (2, 2, 0.5, 1),
        (4, 4, 0.75, 3),
        (4, 4, 0.6, 2),
        (4, 4, 0.1, 1),
    ],
)
def test_steps_are_fewer_in_proportion(
    evaluations: int, steps: int, strength: float, passes: int, new_pipe: New, new_masks: New
) -> None:
    pipe, image = new_pipe(evaluations=evaluations), make_image()
    arguments = {"num_inference_steps": steps, "guidance_scale": 1.0, "image": image}
    assert count_passes(pipe, new_masks(1)[0], strength=strength, **arguments) == passes


@pytest.mark.parametrize("evaluations", [0, 1, 4])
def test_the_image_is_noised_to_the_strength(
    evaluations: int, new_pipe: New, new_masks: New
) -> None:
    """What the network sees first is alpha x0 + sigma noise, with the noise of plain generation."""
    pipe, image = new_pipe(evaluations=evaluations), make_image()
    seen: list[tuple[torch.Tensor, float]] = []
    forward = pipe.unet.forward

    def watch(x: torch.Tensor, t: torch.Tensor, *rest: Any) -> Any:
        seen.append((x.clone(), float(t[0])))
        return forward(x, t, *rest)

    pipe.unet.forward = watch
    call(pipe, new_masks(1)[0])
    (noise, _), _ = seen[0], seen.clear()
    call(pipe, new_masks(1)[0], image=image, strength=0.25)
    x, t = seen[0]
    alpha_bar = pipe.synthesizer.schedule.alpha_bar[int(t)]
    clean = torch.from_numpy(image / 127.5 - 1).permute(2, 0, 1)[None].float()
    expected = alpha_bar**0.5 * pipe.codec.encode(clean) + (1 - alpha_bar) ** 0.5 * noise
    assert t == pytest.approx(250, abs=1)
    torch.testing.assert_close(x, expected.float(), atol=1e-4, rtol=1e-4)


def test_towards_0_the_image_comes_back(new_pipe: New, new_masks: New) -> None:
    """A network that knows only the noise: x0 is what the noise leaves of the image."""
    pipe, image = new_pipe(prediction="epsilon"), make_image()
    errors = [
        np.abs(
            call(pipe, new_masks(1)[0], image=image, strength=s, guidance_scale=1.0).astype(int)
            - image
        ).mean()
        for s in (0.9, 0.5, 0.1, 0.001)
    ]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1 < errors[0]


SCHEDULERS = (
    "DDIMScheduler", "DDPMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler", "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler",
    "HeunDiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler",
    "LCMScheduler", "LMSDiscreteScheduler", "SASolverScheduler", "TCDScheduler",
    "UniPCMultistepScheduler",
)  # fmt: skip


# Those that need more than a few steps: how many, and what else.
SLOW = {
    "HeunDiscreteScheduler": (40, {"use_karras_sigmas": True}),
    "KDPM2AncestralDiscreteScheduler": (40, {"use_karras_sigmas": True}),
    "KDPM2DiscreteScheduler": (40, {"use_karras_sigmas": True}),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("strength", [0.5, 0.35])
def test_every_scheduler_starts_from_an_image(
    scheduler: str, strength: float, new_pipe: New, new_masks: New
) -> None:
    """With a network that knows the image, that comes out: noise and levels fit together."""
    pipe, image = new_pipe(), make_image()
    steps, changes = SLOW.get(scheduler, (10, {}))
    pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config, **changes)
    perfect(pipe, image)
    options = {"num_inference_steps": steps, "guidance_scale": 1.0, "strength": strength}
    found = call(pipe, new_masks(1)[0], image=make_image(seed=1), **options)
    assert np.abs(found.astype(int) - image).max() <= 1


def test_a_scheduler_that_cannot_start_in_the_middle_says_so(new_pipe: New, new_masks: New) -> None:
    pipe = new_pipe()
    pipe.scheduler = diffusers.PNDMScheduler.from_config(pipe.scheduler.config)
    call(pipe, new_masks(1)[0], num_inference_steps=20)
    message = "PNDMScheduler cannot start from an image.*DPMSolverMultistepScheduler"
    with pytest.raises(UserError, match=message) as error:
        call(pipe, new_masks(1)[0], num_inference_steps=20, image=make_image(), strength=0.5)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("codec", ["haar", "pixel"])
@pytest.mark.parametrize("evaluations", [0, 1, 4])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_pixels_outside_the_region_stay_exactly(
    codec: str, evaluations: int, strength: float, new_pipe: New, new_masks: New
) -> None:
    pipe, image = new_pipe(codec, evaluations=evaluations), make_image(32, 48)
    region = make_region(32, 48)
    mask = new_masks(1, 32, 48)[0]
    found = call(pipe, mask, image=image, strength=strength, keep=region)
    far = soft_region(region, 4) == 0
    assert far.mean() > 0.7
    assert np.array_equal(found[0][far], image[far])
    assert (found[0][region] != image[region]).mean() > 0.9


def test_the_edge_of_a_region() -> None:
    region = np.zeros((11, 30), bool)
    region[:, :5] = True
    row = soft_region(region, 4)[5]
    np.testing.assert_allclose(row[4:10], [1, 0.8, 0.6, 0.4, 0.2, 0], atol=1e-6)
    assert (row[:5] == 1).all() and (row[9:] == 0).all()
    corner = soft_region(np.pad(np.ones((1, 1), bool), 8), 4)
    rows, columns = np.indices(corner.shape) - 8
    assert ((corner > 0) == (rows**2 + columns**2 <= 16)).all()


def test_the_region_sees_what_is_kept_at_each_step(new_pipe: New, new_masks: New) -> None:
    """Outside of the region x is the image at the noise of each level."""
    pipe, image, region = new_pipe(), make_image(32, 48), make_region(32, 48)
    clean = torch.from_numpy(image / 127.5 - 1).permute(2, 0, 1)[None].float()
    latent, noises = pipe.codec.encode(clean), []

    def watch(pipe: Any, step: int, t: Any, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
        levels = pipe.synthesizer.schedule.alpha_bar
        following = {0: 750, 1: 500, 2: 250}.get(step)
        if following is not None:
            alpha, sigma = levels[following] ** 0.5, (1 - levels[following]) ** 0.5
            noises.append((tensors["latents"] - alpha * latent)[..., 8:, 12:] / sigma)
        return {}

    call(pipe, new_masks(1, 32, 48)[0], image=image, strength=1, keep=region,
         callback_on_step_end=watch)  # fmt: skip
    assert len(noises) == 3
    for noise in noises[1:]:
        torch.testing.assert_close(noise, noises[0], atol=0.02, rtol=0)
    assert noises[0].std() == pytest.approx(1, abs=0.1)


def test_a_region_of_all_is_none_and_of_nothing_is_the_image(pipe: Any, new_masks: New) -> None:
    mask, image = new_masks(1)[0], make_image()
    plain = call(pipe, mask, image=image, strength=0.5)
    everything, nothing = np.ones((16, 24), bool), np.zeros((16, 24), bool)
    assert np.array_equal(call(pipe, mask, image=image, strength=0.5, keep=everything), plain)
    assert np.array_equal(call(pipe, mask, image=image, strength=0.5, keep=nothing)[0], image)


def test_padded_sizes(pipe: Any, new_masks: New) -> None:
    mask, image, region = new_masks(1, 33, 49)[0], make_image(33, 49), make_region(33, 49)
    found = call(pipe, mask, image=image, strength=0.5, keep=region)
    far = soft_region(region, 4) == 0
    assert found.shape == (1, 33, 49, 3) and np.array_equal(found[0][far], image[far])


def test_an_image_does_not_depend_on_its_batch(pipe: Any, new_masks: New) -> None:
    masks, images = new_masks(2), [make_image(seed=1), make_image(seed=2)]
    regions = np.stack([make_region(), ~make_region()])
    arguments = {"strength": 0.5, "num_images": 2}
    together = call(pipe, masks, image=images, keep=regions, seeds=[1, 2, 3, 4], **arguments)
    second = call(pipe, masks[1], image=images[1], keep=regions[1], seeds=[3, 4], **arguments)
    assert np.abs(together[2:].astype(int) - second).max() <= 1


def test_instance_edges_and_guidance_still_count(new_pipe: New, new_masks: New) -> None:
    pipe, mask, image = new_pipe(edges=True), new_masks(1)[0], make_image()
    numbers = np.arange(16 * 24, dtype=np.uint16).reshape(16, 24) // 30
    common = {"image": image, "strength": 0.5}
    found = call(pipe, mask, instances=numbers, guidance_scale=1.0, **common)
    assert not np.array_equal(found, call(pipe, mask, guidance_scale=1.0, **common))
    assert not np.array_equal(
        found, call(pipe, mask, instances=numbers, guidance_scale=3.0, **common)
    )


def test_forms_of_images_and_regions(pipe: Any, new_masks: New, tmp_path: Path) -> None:
    mask, image, region = new_masks(1)[0], make_image(), make_region()
    Image.fromarray(image).save(tmp_path / "image.png")
    Image.fromarray(region).save(tmp_path / "region.png")
    first = call(pipe, mask, image=image, strength=0.5, keep=region)
    forms = [
        (Image.fromarray(image), Image.fromarray(region)),
        (tmp_path / "image.png", tmp_path / "region.png"),
        (torch.from_numpy(image), torch.from_numpy(region)),
        ([image], [region.astype(np.uint8) * 255]),
        (image[None], region[None].astype(np.uint8)),
    ]
    for given, where in forms:
        assert np.array_equal(call(pipe, mask, image=given, strength=0.5, keep=where), first)


def test_0_5_is_the_default(pipe: Any, new_masks: New) -> None:
    mask, image = new_masks(1)[0], make_image()
    assert np.array_equal(
        call(pipe, mask, image=image), call(pipe, mask, image=image, strength=0.5)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strength": 0.5}, "strength= is for image="),
        ({"keep": np.ones((16, 24), bool)}, "keep= is for image="),
        ({"image": make_image(), "strength": 0}, "strength is 0: must be above 0"),
        ({"image": make_image(), "strength": 1.5}, "strength is 1.5: .* at most 1"),
        ({"image": make_image(), "strength": float("nan")}, "strength is nan"),
        ({"image": make_image(), "strength": "half"}, "strength is 'half'"),
        ({"image": make_image() / 255}, r"image: is float64; .* uint8, 0 to 255; .*\.round"),
        ({"image": make_image().astype(np.uint16)}, "image: is uint16; the model's images are uin"),
        ({"image": make_image()[..., :2]}, "has 2 channels, the model's images have 3 channels"),
        ({"image": make_image(8, 12)}, "is 12x8 .* its mask 24x16"),
        ({"image": [make_image()] * 3}, "image: 3 for 1 masks"),
        ({"image": 5}, "a int is not an image"),
        ({"image": "nowhere.png"}, "nowhere.png: no such file"),
        ({"image": Image.new("RGBA", (24, 16))}, r"mode RGBA.*convert\('RGB'\)"),
        ({"image": make_image(), "keep": np.full((16, 24), 0.5)}, "keep: is float64 of other val"),
        ({"image": make_image(), "keep": make_image()[..., 0]}, "keep: is uint8 of other values"),
        ({"image": make_image(), "keep": np.ones((8, 12), bool)}, "keep 0: is 12x8 .* mask 24x16"),
    ],
)
def test_bad_input_is_one_line_before_any_work(
    arguments: dict[str, Any], message: str, pipe: Any, new_masks: New
) -> None:
    passes: list[int] = []
    handle = pipe.unet.register_forward_hook(lambda *_: passes.append(1))
    with pytest.raises(UserError, match=message) as error:
        call(pipe, new_masks(1)[0], **arguments)
    handle.remove()
    assert "\n" not in str(error.value) and not passes


def make_pipe(model: dict[str, Any]) -> SemanticDiffusionPipeline:
    """Make a small untrained pipeline of two levels."""
    config = ModelConfig.model_validate({
        "base_channels": 16, "channel_mult": [1, 2], "blocks_per_level": 1,
        "attention_factors": [2], "head_channels": 16, "spade_hidden": 8, **model,
    })  # fmt: skip
    labels = LabelSet.from_names({0: "void", 1: "road", 2: "sky", 9: "car"}, ignore_id=0)
    torch.manual_seed(0)
    unet, _ = build_network(config, DiffusionConfig(), labels.num_channels)
    for parameter in unet.parameters():  # the last layers of a fresh network are zero
        torch.nn.init.normal_(parameter, std=0.05)
    file = ModelFile(config, DiffusionConfig(), labels, 32, 48, unet.state_dict(), {})
    made = SemanticDiffusionPipeline.from_model_file(file)
    made.set_progress_bar_config(disable=True)
    return made


def test_images_of_one_channel_and_12_bits(new_masks: New) -> None:
    pipe = make_pipe({"haar_levels": 2, "image_channels": 1, "image_bits": 12})
    mask, region = new_masks(1, 32, 48), make_region(32, 48)
    image = np.random.default_rng(0).integers(0, 4096, (32, 48), dtype=np.uint16)
    real = FromImage(image[None, ..., None], 0.5, region[None])
    found = pipe.generate(mask, [5], SamplerSettings(steps=4), None, real)
    far = soft_region(region, 4) == 0
    assert found.dtype == np.uint16 and np.array_equal(found[0, ..., 0][far], image[far])
    called = pipe(mask[0], image=image, keep=region, seeds=[5], num_inference_steps=4,
                  output_type="np").images  # fmt: skip
    assert np.array_equal(np.rint(called * 4095).astype(np.uint16), found)
    for wrong, message in [
        (image.astype(np.uint8), "is uint8; the model's images are uint16, 0 to 4095"),
        (image + np.uint16(1000), "has values above 4095"),
        (np.stack([image] * 3, -1), "3 channels, the model's images have 1 channel of 12 bits"),
    ]:
        with pytest.raises(UserError, match=message):
            pipe(mask[0], image=wrong)


def test_behind_an_autoencoder(new_masks: New, tmp_path: Path) -> None:
    torch.manual_seed(0)
    AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4,
    ).save_pretrained(tmp_path / "vae")  # fmt: skip
    vae = {"source": str(tmp_path / "vae"), "channels": 4, "downscale": 8}
    pipe = make_pipe({"codec": "vae", "vae": vae})
    mask, image, region = new_masks(1, 32, 48)[0], make_image(32, 48), make_region(32, 48)
    plain = call(pipe, mask)
    assert np.array_equal(call(pipe, mask, image=image, strength=1), plain)
    found = call(pipe, mask, image=image, strength=0.5, keep=region)
    far = soft_region(region, 8) == 0
    assert far.mean() > 0.5 and np.array_equal(found[0][far], image[far])
    assert (found[0][region] != image[region]).mean() > 0.9
    latent = pipe(mask, image=image, keep=region, seeds=[5], num_inference_steps=4,
                  output_type="latent").images  # fmt: skip
    clean = torch.from_numpy(image / 127.5 - 1).permute(2, 0, 1)[None].float()
    known = pipe.codec.encode(clean)
    torch.testing.assert_close(latent[..., 3:], known[..., 3:], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(latent[..., 0, 0], known[..., 0, 0], atol=1e-2)
