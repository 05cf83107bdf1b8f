"""Distilled models: what the pipeline, files, folders and cards make of their evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler

from semsynth import SemanticDiffusionPipeline
from semsynth.core.errors import UserError
from semsynth.diffusion.config import SamplerSettings
from semsynth.pipelines.formats.model_file import load_model_file, read_diffusion
from semsynth.pipelines.outputs import initial_noise, make_generators, to_pixels
from semsynth.pipelines.synthesizer import Synthesizer


def test_one_evaluation_is_one_pass_from_noise(new_pipe: Any, new_masks: Any) -> None:
    pipe, mask = new_pipe(evaluations=1), new_masks(1)
    parts = pipe.synthesizer
    noise = initial_noise((1, 12, 8, 12), make_generators(None, [5], 1), None, parts.device)
    with torch.no_grad():
        x0 = parts.network(noise, torch.tensor([999]), parts.encode(mask)).sample
        expected = to_pixels(parts.decode(parts.codec.clip(x0), (16, 24)), 8)
    assert np.array_equal(pipe.generate(mask, [5]), expected)
    assert np.array_equal(pipe.generate(mask, [5], SamplerSettings("lcm", 1, 1.0)), expected)
    called = pipe(mask[0], seeds=[5], output_type="np", num_inference_steps=1).images
    assert np.array_equal(np.rint(called * 255).astype(np.uint8), expected)


@pytest.mark.parametrize("evaluations", [1, 2, 4])
def test_the_network_is_evaluated_so_often(
    evaluations: int, new_pipe: Any, new_masks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, calls = new_pipe(evaluations=evaluations), []
    handle = pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    pipe(new_masks(1)[0], seeds=[0])
    pipe.generate(new_masks(1), [0])
    assert len(calls) == 2 * evaluations
    handle.remove()
    assert pipe.synthesizer.default_guidance == 1.0


def test_an_image_does_not_depend_on_its_batch(new_pipe: Any, new_masks: Any) -> None:
    pipe, masks = new_pipe(evaluations=4), new_masks(3)
    together = pipe.generate(masks, [1, 2, 3])
    alone = np.concatenate([pipe.generate(masks[i : i + 1], [i + 1]) for i in range(3)])
    assert np.abs(together.astype(int) - alone).max() <= 1  # kernels of another shape round so


def test_a_model_takes_1_2_or_4_evaluations_whichever_is_its_own(
    new_pipe: Any, new_masks: Any
) -> None:
    images = {
        (own, steps): new_pipe(evaluations=own)(
            new_masks(1)[0], seeds=[3], num_inference_steps=steps, output_type="np"
        ).images
        for own in (1, 4)
        for steps in (1, 2, 4)
    }
    for steps in (1, 2, 4):
        assert np.array_equal(images[1, steps], images[4, steps])
    assert not np.array_equal(images[1, 1], images[1, 4])


@pytest.mark.parametrize("evaluations", [1, 4])
def test_file_and_folder_keep_the_evaluations(
    evaluations: int, new_pipe: Any, new_masks: Any, tmp_path: Path
) -> None:
    pipe = new_pipe(evaluations=evaluations)
    pipe.save_checkpoint(tmp_path / "final_model.pth")
    pipe.save_pretrained(tmp_path / "folder")
    image = pipe.generate(new_masks(1), [1])
    called = pipe(new_masks(1)[0], seeds=[1], output_type="np").images
    for path in (tmp_path / "final_model.pth", tmp_path, tmp_path / "folder"):
        assert read_diffusion(path).evaluations == evaluations
        loaded = SemanticDiffusionPipeline.from_checkpoint(path, "cpu")
        assert loaded.evaluations == evaluations
        assert np.array_equal(loaded.generate(new_masks(1), [1]), image)
        assert np.array_equal(Synthesizer.load(path, "cpu").generate(new_masks(1), [1]), image)
    plain = DiffusionPipeline.from_pretrained(tmp_path / "folder", trust_remote_code=True)
    assert type(plain.scheduler).__name__ == "LCMScheduler"
    plain.set_progress_bar_config(disable=True)
    images = plain(new_masks(1)[0], seeds=[1], output_type="np").images
    np.testing.assert_allclose(images, called, atol=1e-5)


def test_other_models_files_do_not_say_it(new_pipe: Any, tmp_path: Path) -> None:
    pipe = new_pipe()
    pipe.save_checkpoint(tmp_path / "final_model.pth")
    value = torch.load(tmp_path / "final_model.pth", weights_only=True)
    assert "evaluations" not in value["diffusion"]
    assert load_model_file(tmp_path).diffusion.evaluations == pipe.evaluations == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_inference_steps": 20}, "this model generates in 1 evaluation .*not in 20 steps"),
        ({"guidance_scale": 2.0}, "without guidance, not with a scale of 2"),
        ({"guidance_interval": (0.0, 0.5)}, "without guidance: omit the interval"),
    ],
)
def test_arguments_that_contradict_are_refused_before_any_work(
    arguments: dict[str, Any], message: str, new_pipe: Any, new_masks: Any
) -> None:
    pipe, calls = new_pipe(evaluations=1), []
    pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(UserError, match=message):
        pipe(new_masks(1)[0], **arguments)
    with pytest.raises(UserError, match="not in 20 steps"):
        pipe.generate(new_masks(1), [0], SamplerSettings(steps=20))
    assert not calls


def test_another_scheduler_is_refused(new_pipe: Any, new_masks: Any) -> None:
    pipe = new_pipe(evaluations=2)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    with pytest.raises(UserError, match=r"generates in 2 evaluations .*LCMScheduler\.from_config"):
        pipe(new_masks(1)[0])


def test_card_and_summary_say_it(new_pipe: Any, tmp_path: Path) -> None:
    pipe = new_pipe(evaluations=1)
    assert "1 evaluation of the network, without guidance" in repr(pipe)
    pipe.save_pretrained(tmp_path / "folder")
    card = (tmp_path / "folder" / "README.md").read_text()
    assert "| generates in | 1 evaluation of the network, without guidance |" in card
    assert 'pipe("mask.png", num_images=4).images' in card
    assert "neither more steps nor guidance" in card
