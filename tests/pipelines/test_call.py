"""`pipe(mask)`: every form of mask gives the same image; an error is one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from semsynth.core.errors import UserError
from semsynth.diffusion.config import SamplerSettings

FAST = {"num_inference_steps": 2, "output_type": "np"}


def generate_images(pipe: Any, mask: Any, **kwargs: Any) -> np.ndarray:
    return pipe(mask, **{"seeds": [3], **FAST, **kwargs}).images


FORMS: dict[str, Callable[[np.ndarray, Any, Path], Any]] = {
    "grey": lambda ids, labels, _: Image.fromarray(ids),
    "16 bits": lambda ids, labels, _: Image.fromarray(ids.astype(np.uint16)),
    "32 bits": lambda ids, labels, _: Image.fromarray(ids.astype(np.int32)),
    "palette": lambda ids, labels, _: _palette(ids),
    "colours": lambda ids, labels, _: Image.fromarray(labels.colorize(ids)),
    "colours and alpha": lambda ids, labels, _: Image.fromarray(
        labels.colorize(ids)
    ).convert("RGBA"),
    "array": lambda ids, labels, _: ids,
    "int64 array": lambda ids, labels, _: ids.astype(np.int64),
    "read-only array": lambda ids, labels, _: _frozen(ids),
    "array with an axis": lambda ids, labels, _: ids[..., None],
    "colour array": lambda ids, labels, _: labels.colorize(ids),
    "batch": lambda ids, labels, _: ids[None],
    "colour batch": lambda ids, labels, _: labels.colorize(ids)[None],
    "tensor": lambda ids, labels, _: torch.from_numpy(ids).long(),
    "tensor batch": lambda ids, labels, _: torch.from_numpy(ids)[None, None],
    "list": lambda ids, labels, _: [ids],
    "path": lambda ids, labels, folder: _saved(Image.fromarray(ids), folder),
    "path of colours": lambda ids, labels, folder: _saved(
        Image.fromarray(labels.colorize(ids)), folder
    ),
    "string": lambda ids, labels, folder: str(_saved(Image.fromarray(ids), folder)),
    "paths": lambda ids, labels, folder: (_saved(Image.fromarray(ids), folder),),
}  # fmt: skip


def _palette(ids: np.ndarray) -> Image.Image:
    image = Image.fromarray(ids).convert("P")
    image.putpalette([7, 7, 7] * 256)
    image.frombytes(ids.tobytes())
    return image


def _frozen(ids: np.ndarray) -> np.ndarray:
    copy = ids.copy()
    copy.setflags(write=False)
    return copy


def _saved(image: Image.Image, folder: Path) -> Path:
    path = folder / "mask.png"
    image.save(path)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_mask_gives_the_same_image(
    form: str, pipe: Any, new_masks: Any, tmp_path: Path
) -> None:
    ids = new_masks(1)[0]
    given = FORMS[form](ids, pipe.labels, tmp_path)
    assert np.array_equal(generate_images(pipe, given), generate_images(pipe, ids))


def test_a_list_may_mix_forms(pipe: Any, new_masks: Any, tmp_path: Path) -> None:
    a, b, c = new_masks(3)
    mixed = [Image.fromarray(a), pipe.labels.colorize(b), _saved(Image.fromarray(c), tmp_path)]
    seeds = [1, 2, 3]
    same = generate_images(pipe, np.stack([a, b, c]), seeds=seeds)
    assert np.array_equal(generate_images(pipe, mixed, seeds=seeds), same)


def test_seeds_are_those_of_generate(pipe: Any, new_masks: Any) -> None:
    masks = new_masks(2)
    settings = SamplerSettings(steps=3, guidance_scale=2.0)
    kwargs = {"num_inference_steps": 3, "guidance_scale": 2.0}
    images = pipe(masks, seeds=[5, 6], **kwargs).images
    assert np.array_equal(np.stack(images), pipe.generate(masks, [5, 6], settings))


def test_output_types(pipe: Any, new_masks: Any) -> None:
    mask, kwargs = new_masks(1), {"num_images": 2, "seeds": [1, 2], "num_inference_steps": 2}
    pil = pipe(mask, **kwargs).images
    assert [image.size for image in pil] == [(24, 16)] * 2 and pil[0].mode == "RGB"
    array = pipe(mask, **kwargs, output_type="np").images
    assert array.shape == (2, 16, 24, 3) and array.dtype == np.float32
    assert array.min() >= 0 and array.max() <= 1
    assert np.array_equal((array * 255).round(), np.stack(pil))
    tensor = pipe(mask, **kwargs, output_type="pt").images
    assert np.array_equal(tensor.permute(0, 2, 3, 1).numpy(), array)
    latent = pipe(mask, **kwargs, output_type="latent").images
    assert latent.shape == (2, 12, 8, 12)
    decoded = (pipe.codec.decode(latent).clamp(-1, 1) + 1) / 2
    assert torch.equal(decoded, tensor)
    (same,) = pipe(mask, **kwargs, output_type="np", return_dict=False)
    assert np.array_equal(same, array)


def test_images_of_a_mask_follow_each_other(pipe: Any, new_masks: Any) -> None:
    a, b = new_masks(2)
    four = generate_images(pipe, [a, b], num_images=2, seeds=[1, 2, 3, 4])
    for index, (mask, seed) in enumerate([(a, 1), (a, 2), (b, 3), (b, 4)]):
        assert np.abs(four[index] - generate_images(pipe, mask, seeds=seed)[0]).max() < 1 / 255


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("scheduler", ["DPMSolverMultistepScheduler", "DDPMScheduler"])
def test_an_image_depends_on_its_own_generator(
    scheduler: str, new_pipe: Any, new_masks: Any
) -> None:
    import diffusers

    pipe, mask = new_pipe(), new_masks(1)[0]
    pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config)
    both = generate_images(pipe, mask, num_images=2, seeds=None, generator=generators(8, 9))
    turned = generate_images(pipe, mask, num_images=2, seeds=None, generator=generators(9, 8))
    alone = generate_images(pipe, mask, seeds=None, generator=generators(9))
    assert np.abs(both - turned[::-1]).max() < 1 / 255
    assert np.abs(both[1] - alone[0]).max() < 1 / 255
    assert (both[0] != both[1]).mean() > 0.3


def test_one_generator_for_all_images(pipe: Any, new_masks: Any) -> None:
    kwargs = {"num_images": 2, "seeds": None}
    (generator,) = generators(4)
    first = generate_images(pipe, new_masks(1), **kwargs, generator=generator)
    second = generate_images(pipe, new_masks(1), **kwargs, generator=generator)
    again = generate_images(pipe, new_masks(1), **kwargs, generator=generators(4)[0])
    assert np.array_equal(first, again)
    assert not np.array_equal(first[0], first[1]) and not np.array_equal(first, second)


def test_without_a_generator_the_global_one_is_used(pipe: Any, new_masks: Any) -> None:
    torch.manual_seed(1)
    first = generate_images(pipe, new_masks(1), seeds=None)
    assert not np.array_equal(generate_images(pipe, new_masks(1), seeds=None), first)
    torch.manual_seed(1)
    assert np.array_equal(generate_images(pipe, new_masks(1), seeds=None), first)


def test_latents_are_the_noise(pipe: Any, new_masks: Any) -> None:
    noise = torch.randn((2, 12, 8, 12), generator=torch.Generator().manual_seed(0))
    kwargs = {"num_images": 2, "seeds": None}
    first = generate_images(pipe, new_masks(1), **kwargs, latents=noise)
    assert np.array_equal(generate_images(pipe, new_masks(1), **kwargs, latents=noise), first)
    alone = generate_images(pipe, new_masks(1), seeds=None, latents=noise[1:])
    assert np.abs(alone[0] - first[1]).max() < 1 / 255


def test_callback(pipe: Any, new_masks: Any) -> None:
    seen = []

    def watch(given: Any, step: int, t: Any, tensors: dict[str, torch.Tensor]) -> Any:
        assert given is pipe and tensors["latents"].shape == (1, 12, 8, 12)
        seen.append((step, int(t)))
        return tensors

    steps = {"num_inference_steps": 4}
    first = generate_images(pipe, new_masks(1), **steps, callback_on_step_end=watch)
    assert [step for step, _ in seen] == [0, 1, 2, 3]
    assert [t for _, t in seen] == sorted((t for _, t in seen), reverse=True)
    assert np.array_equal(first, generate_images(pipe, new_masks(1), **steps))

    def blank(given: Any, step: int, t: Any, tensors: dict[str, torch.Tensor]) -> Any:
        return {"latents": torch.zeros_like(tensors["latents"])} if step == 3 else {}

    gray = generate_images(pipe, new_masks(1), **steps, callback_on_step_end=blank)
    assert np.allclose(gray, 0.5)


def test_a_callback_can_stop(pipe: Any, new_masks: Any) -> None:
    seen = []

    def stop(given: Any, step: int, t: Any, tensors: dict[str, torch.Tensor]) -> Any:
        seen.append(tensors["latents"])
        given._interrupt = step == 1

    kwargs = {"num_inference_steps": 5, "callback_on_step_end": stop, "output_type": "latent"}
    latent = generate_images(pipe, new_masks(1), **kwargs)
    assert len(seen) == 2 and torch.equal(latent, seen[1])
    generate_images(pipe, new_masks(1))
    assert pipe._interrupt is False


def test_progress_bar(new_pipe: Any, new_masks: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = new_pipe()
    pipe.set_progress_bar_config(desc="sampling")
    generate_images(pipe, new_masks(1))
    assert "sampling: 100%" in capsys.readouterr().err
    pipe.set_progress_bar_config(disable=True)
    generate_images(pipe, new_masks(1))
    assert capsys.readouterr().err == ""


def test_guidance_interval(pipe: Any, new_masks: Any) -> None:
    strong = {"guidance_scale": 4.0}
    none = generate_images(pipe, new_masks(1), guidance_scale=1.0)
    assert not np.array_equal(generate_images(pipe, new_masks(1), **strong), none)
    nowhere = generate_images(pipe, new_masks(1), **strong, guidance_interval=(0.0, 0.0))
    assert np.array_equal(nowhere, none)


def test_instances(new_pipe: Any, new_masks: Any, warns: Any) -> None:
    pipe, mask = new_pipe(edges=True), new_masks(1)[0]
    objects = np.zeros((16, 24), np.int32)
    objects[:, 12:] = 70_000
    first = generate_images(pipe, mask, instances=objects)
    other_numbers = objects.astype(np.int64) // 1000
    for same in (other_numbers, Image.fromarray(objects), [torch.from_numpy(objects)]):
        assert np.array_equal(generate_images(pipe, mask, instances=same), first)
    with warns("instances= is missing"):
        without = generate_images(pipe, mask)
    assert not np.array_equal(without, first)
    with pytest.raises(UserError, match="instances: are 1x8x24, the masks 1x16x24"):
        generate_images(pipe, mask, instances=objects[:8])
    with pytest.raises(UserError, match="trained without them"):
        generate_images(new_pipe(), mask, instances=objects)


TRAINED = {"train": {"steps": 10, "mask_dropout": 0.0}}
FINETUNED = TRAINED | {"finetune": {"steps": 5, "mask_dropout": 0.2}}


def test_guidance_of_a_model_that_never_saw_dropped_masks(
    new_pipe: Any, new_masks: Any, warns: Any
) -> None:
    pipe = new_pipe(metadata={"recipe": TRAINED, "step": 10})
    with warns("guidance_scale is 2, but the model never saw"):
        generate_images(pipe, new_masks(1), guidance_scale=2)
    with warns("never saw"):
        pipe.generate(new_masks(1), [3], SamplerSettings(steps=2))
    early = new_pipe(metadata={"recipe": FINETUNED, "step": 10})
    with warns("never saw"):
        generate_images(early, new_masks(1), guidance_scale=2)
    with warns(None):
        assert np.array_equal(
            generate_images(pipe, new_masks(1)),
            generate_images(pipe, new_masks(1), guidance_scale=1.0),
        )
        generate_images(
            new_pipe(metadata={"recipe": FINETUNED, "step": 15}), new_masks(1), guidance_scale=2
        )
        generate_images(
            new_pipe(metadata={"imported_from": "official"}), new_masks(1), guidance_scale=2
        )


def test_another_size_than_trained_on(pipe: Any, new_masks: Any, warns: Any) -> None:
    with warns("masks of 32x8, the model was trained on 16x24"):
        assert generate_images(pipe, new_masks(1, 32, 8)).shape == (1, 32, 8, 3)


def with_pixel(value: int) -> np.ndarray:
    mask = np.full((16, 24), 1, np.int32)
    mask[2, 3:5] = value
    return mask


ODD = np.zeros((16, 24, 3), np.uint8)
ODD[:4, 0] = 250, 250, 240

BAD: list[tuple[dict[str, Any], str]] = [
    ({"mask": None}, "mask= is missing"),
    ({"mask": with_pixel(5)}, r"ids outside the labels: 5 \(2 pixels\)"),
    ({"mask": with_pixel(-1)}, r"ids outside the labels: -1 \(2 pixels\)"),
    ({"mask": [np.ones((16, 24), int), with_pixel(77)]}, r"mask 1: ids .* 77 \(2 pixels\)"),
    ({"mask": np.ones((16, 24))}, "mask: is float64; a mask holds integer label ids"),
    ({"mask": torch.ones(1, 3, 16, 24)}, "mask: is float32; .* argmax"),
    ({"mask": np.ones((2, 3, 4, 5, 6), int)}, "mask: has shape"),
    ({"mask": np.ones((0, 24), int)}, "mask: is empty"),
    ({"mask": ODD}, r"colour \(250, 250, 240\) \(4 pixels\) .* 'road'"),
    ({"mask": Image.fromarray(ODD)}, r"colour \(250, 250, 240\) \(4 pixels\)"),
    ({"mask": Image.new("CMYK", (24, 16))}, "mode CMYK"),
    ({"mask": "a street in the rain"}, "no such file; .*no text prompts"),
    ({"mask": "."}, "is a folder"),
    ({"mask": []}, "an empty list"),
    ({"mask": [None]}, "mask 0: a NoneType is not a mask"),
    ({"mask": {"a": 1}}, "mask: a dict is not a mask"),
    ({"mask": [np.ones((16, 24), int), np.ones((8, 24), int)]}, "mask 0 is 16x24, mask 1 8x24"),
    ({"num_images": 0}, "num_images is 0"),
    ({"num_images": 1.5}, "num_images is 1.5"),
    ({"num_images": np.True_}, "num_images is True"),
    ({"num_inference_steps": np.float64(2)}, "num_inference_steps is 2.0"),
    ({"guidance_scale": "1.5"}, "guidance_scale is '1.5'"),
    ({"guidance_scale": True}, "guidance_scale is True"),
    ({"guidance_scale": [1.0, 2.0]}, r"guidance_scale is \[1.0, 2.0\]"),
    ({"guidance_interval": 0.5}, "guidance_interval is 0.5"),
    ({"guidance_interval": "01"}, "guidance_interval is '01'"),
    ({"seeds": True}, "seeds: give a list"),
    ({"num_inference_steps": 0}, "num_inference_steps is 0"),
    ({"num_inference_steps": 1000}, "can take at most 999"),
    ({"guidance_scale": -1}, "guidance_scale is -1"),
    ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
    ({"guidance_interval": (0.5, 0.1)}, "guidance_interval is"),
    ({"output_type": "jpg"}, "output_type is 'jpg': must be one of pil, np, pt, latent"),
    ({"seeds": [1, 2]}, "2 seeds for 1 images"),
    ({"seeds": ["a"]}, "seeds: give a list"),
    ({"generator": torch.Generator()}, "generator= and seeds="),
    ({"seeds": None, "generator": generators(1, 2)}, "2 generators for 1 images"),
    ({"seeds": None, "generator": 3}, "generators: a int"),
    ({"latents": torch.zeros(1, 3, 16, 24)}, r"latents: \(1, 3, 16, 24\); must .*\(1, 12, 8, 12\)"),
    ({"latents": np.zeros(3)}, "latents: ndarray"),
    ({"callback_on_step_end": 3}, "callback_on_step_end: must be a function"),
    ({"callback_on_step_end_tensor_inputs": ["prompt_embeds"]}, "there are only latents"),
    ({"callback_on_step_end": lambda *_: {"latents": 3}}, "must return latents of shape"),
    ({"prompt": "a street"}, "prompt= is not for this pipeline: .*the mask"),
    ({"negative_prompt": "a"}, "negative_prompt= .*guidance_scale"),
    ({"num_images": 2, "num_images_per_prompt": 2}, "are the same: give one of them"),
    ({"num_images_per_prompt": 0}, "num_images_per_prompt is 0: must be a whole number"),
    ({"height": 512}, "height= .*size of its mask"),
    ({"eta": 0.0}, "eta= .*DDIMScheduler"),
    ({"guidance": 2.0}, "guidance= .*did you mean guidance_scale="),
    ({"xyzzy": 2.0}, "xyzzy= .*see help"),
]


def test_numbers_of_numpy_are_numbers(pipe: Any, new_masks: Any) -> None:
    expected = pipe(
        new_masks(1), num_images=2, num_inference_steps=2, seeds=[3, 4], guidance_scale=2.5,
        guidance_interval=(0.0, 0.5), output_type="np",
    ).images  # fmt: skip
    found = pipe(
        new_masks(1), num_images=np.int16(2), num_inference_steps=np.array(2),
        seeds=np.array([3, 4], np.int32), guidance_scale=np.float32(2.5),
        guidance_interval=np.array([0.0, 0.5], np.float32), output_type="np",
    ).images  # fmt: skip
    assert np.array_equal(found, expected)
    one = pipe(new_masks(1), seeds=np.array(3), **FAST).images
    assert np.array_equal(one, pipe(new_masks(1), seeds=[np.uint8(3)], **FAST).images)


@pytest.mark.parametrize(("wrong", "message"), BAD, ids=range(len(BAD)))
def test_errors_are_one_line(wrong: dict[str, Any], message: str, pipe: Any) -> None:
    arguments = {"mask": np.ones((16, 24), np.uint8), "seeds": [3], **FAST, **wrong}
    with pytest.raises(UserError, match=message) as error:
        pipe(**arguments)
    assert "\n" not in str(error.value)


def test_any_size_with_one_warning(pipe: Any, warns: Any) -> None:
    mask = np.ones((18, 22), np.uint8)
    with warns(r"multiples of 4: generated at 20x24"):
        image = pipe(mask, seeds=[3], **FAST).images[0]
    assert image.shape == (18, 22, 3)
    latent = pipe(mask, seeds=[3], **FAST | {"output_type": "latent"}).images
    assert latent.shape[2:] == (10, 12)


def test_attributes_of_other_pipelines(pipe: Any, warns: Any) -> None:
    for name in ("text_encoder", "load_lora_weights", "enable_vae_slicing"):
        assert not hasattr(pipe, name)
    assert pipe.vae is None
    with pytest.raises(AttributeError, match=r"has no load_lora_weights: .*adapters"):
        pipe.load_lora_weights("x")
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = pipe.nonsense
    with warns("attention slicing: has no effect"):
        pipe.enable_attention_slicing()
    with warns("xformers: has no effect"):
        pipe.enable_xformers_memory_efficient_attention()
    with warns(None):
        pipe.disable_attention_slicing()
        pipe.disable_xformers_memory_efficient_attention()
    with pytest.raises(UserError, match="FreeU"):
        pipe.enable_freeu(1, 1, 1, 1)
