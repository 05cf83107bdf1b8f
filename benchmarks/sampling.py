"""Quality against the number of denoising steps, by sampler and its settings.

    python benchmarks/sampling.py --model final_model.pth --data prepared --segmenter segmenter \
        --output out

Every arm generates images of the same masks with the same seeds; they are scored by semantic
consistency (mIoU of a segmenter) and Fréchet distances to the real images. A guided step is two
passes of the decoder and one of the encoder.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import numpy.typing as npt
from torch import Tensor

from semsynth.cli.common import finish, guard, parse
from semsynth.core.errors import UserError
from semsynth.data.labels import LabelSet
from semsynth.diffusion.config import SamplerSettings
from semsynth.evaluation.config import EvaluateConfig
from semsynth.evaluation.run import evaluate
from semsynth.models.codecs.codec import Codec
from semsynth.pipelines.from_image import FromImage
from semsynth.pipelines.generate.config import GenerateConfig
from semsynth.pipelines.generate.run import generate
from semsynth.pipelines.pipeline import SemanticDiffusionPipeline

CONSISTENCY = ("miou", "miou_interval", "miou_real")
STEPS = (5, 8, 12, 20, 50, 250, 1000)

Schedulers: Any = diffusers
Clip = Callable[[Tensor], Tensor]
# Name: the scheduler, its settings, and the steps that are tried.
SAMPLERS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "dpm++ 2M": ("DPMSolverMultistepScheduler", {}, (5, 8, 12, 20, 50)),
    "dpm++ 2M, trailing": (
        "DPMSolverMultistepScheduler", {"timestep_spacing": "trailing"}, (5, 8, 12, 20),
    ),
    "dpm++ 2M, Karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}, (8, 12, 20)),
    "dpm++ 2M, SDE": (
        "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, (12, 20, 50),
    ),
    "dpm++ 3M": ("DPMSolverMultistepScheduler", {"solver_order": 3}, (8, 12, 20)),
    "dpm++ 2M, unclipped": ("DPMSolverMultistepScheduler", {}, (20,)),
    "dpm++ 2M, dynamic clip": ("DPMSolverMultistepScheduler", {}, (20,)),
    "unipc": ("UniPCMultistepScheduler", {}, (5, 8, 12, 20)),
    "unipc, trailing": (
        "UniPCMultistepScheduler", {"timestep_spacing": "trailing"}, (5, 8, 12, 20),
    ),
    "deis": ("DEISMultistepScheduler", {"timestep_spacing": "trailing"}, (5, 8, 12)),
    "ddim": ("DDIMScheduler", {"timestep_spacing": "trailing"}, (5, 8, 12, 20, 50)),
    "ddpm": ("DDPMScheduler", {"variance_type": "fixed_small"}, (20, 50, 250, 1000)),
}  # fmt: skip


def unclipped(codec: Codec) -> Clip:
    """Return a clipping function that leaves x0 as predicted."""
    return lambda x0_BCHW: x0_BCHW


def dynamic_clip(codec: Codec, share: float = 0.995) -> Clip:
    """Return Imagen's dynamic thresholding (arXiv 2205.11487, 2.3), of the image behind x0."""

    def clip(x0_BCHW: Tensor) -> Tensor:
        image = codec.decode(x0_BCHW)
        most = image.abs().flatten(1).quantile(share, dim=1).clamp(min=1)[:, None, None, None]
        return codec.encode(image.clamp(-most, most) / most)

    return clip


# How x0 is clipped, where not by the codec.
CLIPS = {"dpm++ 2M, unclipped": unclipped, "dpm++ 2M, dynamic clip": dynamic_clip}


@dataclass(frozen=True)
class SamplingConfig:
    """Generate images with each sampler and number of steps, and score them."""

    model: Path
    """The generator: final_model.pth or a Diffusers folder."""
    data: Path
    """Prepared data set with the held-out masks."""
    segmenter: Path
    """The evaluator: a segmenter trained on real images."""
    output: Path
    """Folder of samples and results; finished arms are skipped."""
    samplers: tuple[str, ...] = tuple(SAMPLERS)
    """Which samplers."""
    steps: tuple[int, ...] = STEPS
    """Numbers of steps to run, among those of each sampler."""
    features: tuple[str, ...] = ()
    """Vision models for further Fréchet distances."""
    guidance_scale: float = 1.5
    """Guidance scale."""
    masks: int = 64
    """Number of masks."""
    per_mask: int = 4
    """Images per mask."""
    device: str = "auto"
    """auto, cpu, cuda."""


class Generator:
    """The pipeline with another scheduler, with the interface that `generate` uses."""

    def __init__(self, pipe: SemanticDiffusionPipeline, scheduler: Any) -> None:
        """Give ``pipe`` the scheduler."""
        self.pipe = pipe
        pipe.scheduler = scheduler
        pipe.synthesizer.set_precision("auto")
        pipe.set_progress_bar_config(disable=True)
        self.labels: LabelSet = pipe.labels
        self.height, self.width = pipe.height, pipe.width
        self.licence, self.checkpoint_sha256 = pipe.licence, pipe.checkpoint_sha256
        self.instance_edges = pipe.instance_edges
        self.pixels = pipe.synthesizer.pixels

    def generate(
        self,
        mask_BHW: npt.NDArray[Any],
        seeds: Sequence[int],
        settings: SamplerSettings,
        edges_BHW: npt.NDArray[Any] | None = None,
        real: FromImage | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Generate images; see ``SemanticDiffusionPipeline.generate``."""
        if edges_BHW is not None or real is not None:
            raise UserError("this benchmark needs a model without instance edges, and no images")
        (images,) = self.pipe(
            mask_BHW,
            seeds=list(seeds),
            output_type="np",
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance_scale,
            return_dict=False,
        )
        return np.rint(images * 255).astype(np.uint8)  # type: ignore[no-any-return]


def main(argv: list[str]) -> int:
    """Run the arms that are not finished and print the table."""
    config, as_json = parse(SamplingConfig, argv, "sampling")
    arms = [
        (name, steps)
        for name in config.samplers
        for steps in SAMPLERS[name][2]
        if steps in config.steps
    ]
    rows = [run_arm(config, name, steps) for name, steps in arms]
    print(f"{'sampler':22} {'steps':>5} {'mIoU':>6} {'95% interval':>16}  distances")
    for row in rows:
        distances = ", ".join(f"{key} {row[key]:.4g}" for key in row if key.startswith("fd_"))
        low, high = row["miou_interval"]
        print(f"{row['sampler']:22} {row['steps']:5} {row['miou']:6.3f} {low:8.3f} {high:7.3f}  "
              f"{distances}")  # fmt: skip
    drawn = plot(rows, config.output / "sampling.png")
    return finish({"arms": rows, "plot": drawn}, as_json)


def plot(rows: list[dict[str, Any]], path: Path) -> str:
    """Draw mIoU and the segmenter's Fréchet distance against the evaluations of the network.

    Returns:
        The file, or why there is none: Matplotlib is not a dependency of the package.
    """
    try:
        import matplotlib
    except ImportError:
        return "not drawn: pip install matplotlib"
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(13, 4.2), layout="constrained")
    for i, name in enumerate(dict.fromkeys(row["sampler"] for row in rows)):
        arm = sorted((row for row in rows if row["sampler"] == name), key=lambda row: row["steps"])
        steps = [row["steps"] for row in arm]
        for axis, key in zip(axes, ("miou", "fd_segmenter"), strict=True):
            values = [row[key] for row in arm]
            color = plt.get_cmap("tab20")(i % 20)
            axis.plot(steps, values, marker="o", markersize=4, label=name, color=color)
    axes[0].axhline(rows[0]["miou_real"], color="0.5", linestyle="--", label="real images")
    for axis, title in zip(
        axes, ("mIoU of the segmenter", "Fréchet distance on its features"), strict=True
    ):
        axis.set_xscale("log")
        axis.set_xticks(STEPS, [str(n) for n in STEPS])
        axis.minorticks_off()
        axis.set_xlabel("network evaluations (guided)")
        axis.set_title(title)
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.savefig(path, dpi=130)
    return str(path)


def run_arm(config: SamplingConfig, name: str, steps: int) -> dict[str, Any]:
    """Generate and score the images of one arm; return the scores."""
    folder = config.output / f"{name.replace(', ', '_').replace(' ', '-')}_{steps}"
    result = folder / "result.json"
    if result.exists():
        return dict(json.loads(result.read_text()))
    pipe = SemanticDiffusionPipeline.from_checkpoint(config.model, config.device)
    kind, settings, _ = SAMPLERS[name]
    if name in CLIPS:
        pipe.codec.clip = CLIPS[name](pipe.codec)  # type: ignore[method-assign, assignment]
    scheduler = getattr(Schedulers, kind).from_config(pipe.scheduler.config, **settings)
    generation = GenerateConfig(
        config.model, config.data, folder / "samples", per_mask=config.per_mask,
        limit=config.masks, steps=steps, guidance_scale=config.guidance_scale,
    )  # fmt: skip
    start = time.perf_counter()
    summary = generate(generation, Generator(pipe, scheduler))
    seconds = (time.perf_counter() - start) / max(1, summary["n_new"])
    report = evaluate(
        EvaluateConfig(
            samples=generation.output, data=config.data, output=folder / "report",
            segmenter=config.segmenter, features=config.features, download=False,
        )
    )  # fmt: skip
    metrics = report["metrics"]
    row = {
        "sampler": name,
        "steps": steps,
        "pictures": summary["n_generated"],
        "seconds": round(seconds, 4),
        **{key: metrics["semantic_consistency"][key] for key in CONSISTENCY},
        **{key: value["value"] for key, value in metrics["frechet"].items()},
    }
    result.write_text(json.dumps(row))
    return row


if __name__ == "__main__":
    sys.exit(guard(lambda: main(sys.argv[1:])))
