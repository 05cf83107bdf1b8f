"""`semsynth demo --source streets`: built-in streets, and a generator trained from scratch."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from semsynth.cli.demo import DemoConfig
from semsynth.cli.demo.stages import (
    Demo,
    Stage,
    generate_images,
    measure_gain,
    peak_memory_gb,
    run_stages,
    train_evaluator,
    write_report,
)
from semsynth.core.durations import duration
from semsynth.core.files import read_json
from semsynth.core.logging import logger
from semsynth.core.outputs import claim_output_dir

# The Fréchet distance without a download: on the features of our own segmenter.
_FEATURES = "fd_segmenter"
_FILE_KEYS = {"real_images": "real_pictures"}


def run_streets(config: DemoConfig) -> dict[str, Any]:
    """Prepare, train, generate, evaluate, and measure what the images add to a segmenter.

    Writes ``prepared/``, ``segmenter/`` (for the evaluation), ``run/`` (the generator),
    ``samples/``, ``augment/`` and ``report/`` in ``config.output``.

    Returns:
        As ``run_demo``.

    Raises:
        UserError: as ``run_demo``.
    """
    key = {"recipe": config.recipe, "seed": config.seed}
    # Keys in files keep their names.
    budget = {_FILE_KEYS.get(k, k): v for k, v in asdict(config.sizes).items()}
    claim_output_dir(config.output, "demo", {**key, "budget": budget})
    demo = Demo(config, config.output)
    logger.info(f"semsynth demo: street scenes from masks; everything goes to {config.output}/")
    logger.info("(if it is interrupted, the same command resumes)")
    samples, run, report = (demo.folder(name) for name in ("samples", "run", "report"))
    stages: list[Stage] = [
        ("prepare", "Streets: render images and masks", lambda: _prepare(demo)),
        (
            "evaluator",
            "Segmenter for evaluation: train on the real images",
            lambda: train_evaluator(demo),
        ),
        ("train", "Generator: train, then fine-tune for guidance", lambda: _train(demo)),
        ("generate", "Images: generate from held-out masks", lambda: _generate(demo)),
        (
            "augment",
            "Augmentation: few real images, with and without synthetic ones",
            lambda: _augment(demo),
        ),
        ("evaluate", "Scores and page", lambda: write_report(demo, samples, run, report)),
    ]
    seconds = run_stages(stages)
    scores, gain = read_json(report / "report.json"), read_json(demo.gain)
    numbers = headline(scores, gain)
    memory = peak_memory_gb()
    for line in _closing_lines(numbers, gain, sum(seconds.values()), memory):
        logger.info(line)
    return {
        "output": str(config.output),
        "page": str(report / "report.html"),
        "numbers": numbers,
        "seconds": seconds,
        "peak_memory_gb": round(memory, 2),
    }


def _prepare(demo: Demo) -> None:
    from semsynth.data.config import PrepareConfig
    from semsynth.data.prepare.run import prepare
    from semsynth.training.recipe import load_recipe

    recipe = load_recipe(demo.config.recipe)
    prepare(
        PrepareConfig(
            source="streets",
            output=demo.folder("prepared"),
            height=recipe.height,
            width=recipe.width,
            train_count=demo.number("train_count"),
            val_count=demo.number("val_count"),
            seed=demo.config.seed,
        )
    )


def _train(demo: Demo) -> None:
    from semsynth.training.loop import train
    from semsynth.training.recipe import TrainConfig

    sizes = demo.sizes
    steps = {"train.steps": sizes.train_steps, "finetune.steps": sizes.finetune_steps}
    train(
        TrainConfig(
            recipe=demo.config.recipe,
            data=demo.folder("prepared"),
            output=demo.folder("run"),
            set=tuple(f"{name}={value}" for name, value in steps.items() if value is not None),
            device=demo.config.device,
        )
    )


def _generate(demo: Demo) -> None:
    model = demo.folder("run") / "final_model.pth"
    per_mask, output = demo.number("per_mask"), demo.folder("samples")
    generate_images(demo, model, output, split="val", per_mask=per_mask, batch_size=16)


def _augment(demo: Demo) -> None:
    model = demo.folder("run") / "final_model.pth"
    limit, output = demo.number("synthetic_count"), demo.folder("augment") / "samples"
    generate_images(demo, model, output, split="train", limit=limit, per_mask=1, batch_size=16)
    measure_gain(demo)


def headline(report: dict[str, Any], augmentation: dict[str, Any]) -> dict[str, float | None]:
    """Return the main numbers.

    Args:
        report: the content of ``report.json``.
        augmentation: the content of ``augmentation.json``.

    Returns:
        Shares of 1 and distances; None if one could not be computed.
    """
    consistency = report["metrics"].get("semantic_consistency", {})
    baselines = report["controls"]
    mean_color = baselines.get("mean_colours", {})
    distance = report["metrics"].get("frechet", {}).get(_FEATURES, {}).get("to_training", {})
    miou, ceiling = consistency.get("miou"), consistency.get("miou_real")
    return {
        "miou_generated": miou,
        "miou_real": ceiling,
        "miou_share_of_real": round(miou / ceiling, 4) if miou is not None and ceiling else None,
        "miou_shuffled_masks": baselines.get("shuffled_masks", {}).get("miou"),
        "miou_mean_colours": mean_color.get("miou"),
        "frechet": distance.get("generated"),
        "frechet_real": distance.get("real"),
        "frechet_mean_colours": distance.get("mean_colours"),
        "augmentation_gain": augmentation["gain"]["real_and_synthetic"]["miou"],
    }


def _closing_lines(
    numbers: dict[str, float | None], augmentation: dict[str, Any], seconds: float, memory: float
) -> list[str]:
    n = {name: "-" if value is None else f"{value:.2f}" for name, value in numbers.items()}
    arms, gain = augmentation["arms"], augmentation["gain"]["real_and_synthetic"]
    wins = sum(difference > 0 for difference in gain["trials"])
    lines = [
        "",
        "Do the images match their masks? (mIoU of the segmenter, on held-out masks)",
        f"  generated {n['miou_generated']}, real {n['miou_real']}: "
        f"{n['miou_share_of_real']} of the real images",
        f"  to compare: shuffled masks {n['miou_shuffled_masks']}, "
        f"each class in its mean colour {n['miou_mean_colours']}",
        "Do they look real? (Fréchet distance from the training images; lower is closer)",
        f"  generated {n['frechet']}",
        f"  to compare: held-out real images {n['frechet_real']}, "
        f"each class in its mean colour {n['frechet_mean_colours']}",
        f"Do they help another segmenter with {augmentation['n_real']} real images? (mIoU)",
        f"  without {arms['real']['miou']:.3f}, with {arms['real_and_synthetic']['miou']:.3f}: "
        f"{gain['miou']:+.3f}, better in {wins} of {len(gain['trials'])} trials",
    ]
    if "real_and_more_real" in arms:
        more = arms["real_and_more_real"]["miou"]
        lines.append(f"  with more real images instead of synthetic ones: {more:.3f}")
    return [*lines, f"All in {duration(seconds)}, {memory:.1f} GB of memory at most.", ""]
