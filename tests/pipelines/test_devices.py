"""Compiling, offloading, precision and gradient checkpointing, as for other Diffusers pipelines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from semsynth.core.errors import UserError
from semsynth.diffusion.config import SamplerSettings


def generate_images(pipe: Any, mask: np.ndarray, **kwargs: Any) -> np.ndarray:
    return pipe(mask, seeds=[1], num_inference_steps=3, output_type="np", **kwargs).images


def test_compiled(new_pipe: Any, new_masks: Any, tmp_path: Any) -> None:
    pipe, mask, settings = new_pipe(), new_masks(1), SamplerSettings(steps=3, guidance_scale=1.0)
    before = pipe.generate(mask, [1], settings)
    pipe.unet = torch.compile(pipe.unet, backend="eager", fullgraph=True)
    images = generate_images(pipe, mask, guidance_scale=1.0)
    assert np.abs(images * 255 - before).max() < 1
    assert np.abs(pipe.generate(mask, [1], settings).astype(int) - before).max() <= 1
    pipe.save_pretrained(tmp_path / "model")
    loaded = type(pipe).from_pretrained(tmp_path / "model")
    assert loaded.model_file.weights.keys() == pipe.model_file.weights.keys()


def test_offload_needs_an_accelerator(new_pipe: Any) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one here")
    for name in ("enable_model_cpu_offload", "enable_sequential_cpu_offload"):
        with pytest.raises(RuntimeError, match="requires accelerator, but not found") as error:
            getattr(new_pipe(), name)()
        assert "\n" not in str(error.value)


def test_offloaded(new_pipe: Any, new_masks: Any) -> None:
    """With the CPU as the accelerator: the same, but for the speed."""
    pipe, mask = new_pipe(edges=True), new_masks(1)
    objects = (mask > 1).astype(np.uint8)
    before = generate_images(pipe, mask, instances=objects)
    pipe.enable_model_cpu_offload(device="cpu")
    for _ in range(2):
        assert np.array_equal(generate_images(pipe, mask, instances=objects), before)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_cuda
@pytest.mark.parametrize("kind", ["", "model", "sequential"])
def test_on_an_accelerator(kind: str, new_pipe: Any, new_masks: Any) -> None:
    pipe, mask = new_pipe(edges=True), new_masks(1)
    objects = (mask > 1).astype(np.uint8)
    before = generate_images(pipe, mask, instances=objects)
    if kind:
        getattr(pipe, f"enable_{kind}_cpu_offload")()
    else:
        pipe.to("cuda")
    for _ in range(2):
        after = generate_images(pipe, mask, instances=objects)
        assert np.abs(after - before).mean() < 0.01
        assert kind == "" or pipe.unet.conv_in.weight.device.type != "cuda"


@needs_cuda
def test_generators_of_an_accelerator(new_pipe: Any, new_masks: Any) -> None:
    pipe = new_pipe()
    kwargs = {"num_inference_steps": 2, "output_type": "np"}
    there = torch.Generator("cuda").manual_seed(1)
    with pytest.raises(UserError, match="a generator of device 'cuda' for a pipeline on 'cpu'"):
        pipe(new_masks(1), generator=there, **kwargs)
    first = pipe.to("cuda")(new_masks(1), generator=there, **kwargs).images
    again = pipe(new_masks(1), generator=there.manual_seed(1), **kwargs).images
    assert np.array_equal(first, again)


def test_bfloat16_generates_nearly_the_same(new_pipe: Any, new_masks: Any) -> None:
    pipe, mask = new_pipe(), new_masks(1)
    before = generate_images(pipe, mask)
    half = pipe.to(torch.bfloat16)
    assert half is pipe and pipe.dtype == torch.bfloat16
    after = generate_images(pipe, mask)
    assert after.dtype == np.float32
    assert 0 < np.abs(after - before).mean() < 0.02


def test_gradient_checkpointing(new_pipe: Any, new_masks: Any) -> None:
    pipe = new_pipe()
    condition = pipe.synthesizer.encode(new_masks(1))
    x = torch.randn((1, 12, 8, 12), generator=torch.Generator().manual_seed(0))

    def gradient() -> torch.Tensor:
        pipe.unet.zero_grad()
        pipe.unet.train()(x, 3, condition).sample.square().mean().backward()
        return pipe.unet.conv_in.weight.grad.clone()

    plain = gradient()
    pipe.unet.enable_gradient_checkpointing()
    assert pipe.unet.is_gradient_checkpointing
    assert torch.allclose(gradient(), plain, rtol=1e-4, atol=1e-9)


def test_the_network_takes_the_official_label_map(pipe: Any, new_masks: Any) -> None:
    """``unet(x, t, label_map)`` gives the numbers of the pipeline's pass."""
    mask = new_masks(1)
    x = torch.randn((1, 12, 8, 12), generator=torch.Generator().manual_seed(0))
    channels = torch.from_numpy(pipe.labels.channel_lut()[mask])
    hot = torch.stack([channels == k for k in range(3)], 1).float()
    with torch.no_grad():
        by_map = pipe.unet(x, 7, hot).sample
        by_ids = pipe.unet(x, 7, pipe.synthesizer.encode(mask), return_dict=False)[0]
    assert torch.allclose(by_map, by_ids, atol=1e-5)
