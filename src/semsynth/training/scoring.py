"""Scores during training: an evaluator on images of fixed training masks; the best is kept."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semsynth.core.distributed.job import Job
from semsynth.core.distributed.preemption import requested
from semsynth.core.errors import UserError
from semsynth.core.files import link_or_copy, read_json, to_disk, write_json
from semsynth.core.logging import logger, progress
from semsynth.core.rng import derive_seed, evenly
from semsynth.data.content import digest_json
from semsynth.data.dataset import PreparedDataset
from semsynth.data.image_files.channels import as_rgb
from semsynth.data.labels import Array
from semsynth.evaluation.evaluators import Evaluator, open_evaluators
from semsynth.evaluation.metrics.frechet import FeatureStatistics, frechet_distance
from semsynth.evaluation.metrics.kernel import unbiased_mmd
from semsynth.pipelines.formats.diffusers_folder import FINAL
from semsynth.pipelines.formats.model_file import ModelFile, save_model_file
from semsynth.pipelines.synthesizer import Synthesizer
from semsynth.segmentation.metrics import ConfusionMatrix
from semsynth.training.checkpoints.store import MANIFEST, STATE, step_folder
from semsynth.training.recipe import Recipe
from semsynth.training.validation import PREVIEW_STEPS

SCORED_MASKS = 64
BEST = "best"
SPLIT = "train"
_BATCH = 8
_PARTIAL, _OLD = f".{BEST}.partial", f".{BEST}.old"
_NAMES = ("miou", "miou_real", "fd", "kd")

Scores = dict[str, Any]


class Scorer:
    """Samples fixed masks of the training split with fixed noise, and lets an evaluator score them.

    Attributes:
        stems: the masks, at most 64, evenly spread over the sorted stems of the split, so that each
            sequence has its share. Training uses their images like all others: a run is the same
            with and without scores.
    """

    def __init__(
        self, evaluator: Evaluator, data: PreparedDataset, recipe: Recipe, batch_size: int
    ) -> None:
        """Choose the masks; ``batch_size``: images at a time, which changes rounding alone."""
        self.stems = evenly(data.stems(SPLIT), SCORED_MASKS)
        self._evaluator, self._data, self._recipe = evaluator, data, recipe
        self._batch_size = batch_size

    @cached_property
    def key(self) -> str:
        """What scores depend on besides the weights: scores with another key do not compare."""
        digests = self._data.digests([SPLIT])
        masks = {stem: digests[f"{SPLIT}/{stem}"] for stem in self.stems}
        return digest_json([self._evaluator.key, masks])

    def score(
        self, synthesizer: Synthesizer, on_batch: Callable[[], None] = lambda: None
    ) -> Scores | None:
        """Return the scores of a generator: ``miou``, ``miou_real``, ``fd`` and ``kd``.

        ``miou`` is that of the evaluator's predictions on images of the masks, ``miou_real`` of
        those on the real images; ``fd`` and ``kd`` are the Frechet distance and the unbiased
        squared MMD (KID's kernel) between both on the evaluator's features, if it has some. Random
        states stay.

        Args:
            synthesizer: the generator.
            on_batch: called before each batch.

        Returns:
            The scores; None: a signal to stop came before they were complete.
        """
        with same_random_state(synthesizer.device):
            real_matrix, real_features = self._real
            matrix, features = ConfusionMatrix(self._evaluator.ids), []
            parts = range(0, len(self.stems), self._batch_size)
            for start in progress(parts, "score", len(parts), "batch"):
                if requested():
                    return None
                on_batch()
                stems = self.stems[start : start + self._batch_size]
                features.append(self._evaluate(matrix, stems, self._generate(synthesizer, stems)))
        scores = {"miou": matrix.miou, "miou_real": real_matrix.miou}
        if len(self.stems) > 1 and len(real_features):
            generated = np.concatenate(features)
            statistics = [FeatureStatistics.of(x) for x in (generated, real_features)]
            scores["fd"] = frechet_distance(*statistics)
            scores["kd"] = unbiased_mmd(real_features, generated)
        return {name: round(value, 6) for name, value in scores.items()}

    @cached_property
    def _real(self) -> tuple[ConfusionMatrix, Array]:
        """The evaluator's confusion matrix on the real images, and its features (N, D) of them."""
        matrix, features = ConfusionMatrix(self._evaluator.ids), []
        for start in range(0, len(self.stems), self._batch_size):
            stems = self.stems[start : start + self._batch_size]
            images = np.stack([self._data.read_rgb(SPLIT, stem) for stem in stems])
            features.append(self._evaluate(matrix, stems, images))
        return matrix, np.concatenate(features)

    def _evaluate(self, matrix: ConfusionMatrix, stems: Sequence[str], images_BHWC: Array) -> Array:
        """Add the evaluator's predictions on images of masks to ``matrix``; return its features."""
        masks = [self._data.read_mask(SPLIT, stem) for stem in stems]
        predicted, features = self._evaluator.analyse(images_BHWC, masks[0].shape)
        for stem, mask, ids in zip(stems, masks, predicted, strict=True):
            box = self._data.content_box(SPLIT, stem)
            matrix.add(ids, mask, self._data.labels.ignore_id, box)
        return np.empty((0, 0)) if features is None else features

    def _generate(self, synthesizer: Synthesizer, stems: Sequence[str]) -> Array:
        """Return images (B, H, W, 3) of masks, each of its own fixed noise, that of all runs."""
        data = self._data
        settings = synthesizer.preview_settings(PREVIEW_STEPS)
        masks = np.stack([data.read_mask(SPLIT, stem) for stem in stems])
        edges = None
        if synthesizer.instance_edges and data.has_instances(SPLIT):
            edges = np.stack([data.read_edges(SPLIT, stem) for stem in stems])
        seeds = [derive_seed(0, "score", stem) for stem in stems]
        images = synthesizer.generate(masks, seeds, settings, edges)
        if data.pixels.is_rgb:
            return images
        return np.stack([as_rgb(image, data.pixels.bits) for image in images])

    def best_of(self, run: Path) -> BestCheckpoint:
        """Return what keeps the best checkpoint of a run by these scores."""
        return BestCheckpoint(run, self.key)

    @staticmethod
    def recorded(earlier: Sequence[Scores], step: int) -> Scores | None:
        """Return the line of ``metrics.jsonl`` with the scores of a step; None: there is none."""
        return next((x for x in earlier if x["step"] == step and "miou" in x), None)

    def with_scores(self, file: ModelFile, earlier: Sequence[Scores], step: int) -> ModelFile:
        """Return a model's file with the scores of its step, if it has some."""
        record = self.recorded(earlier, step)
        if record is None:
            return file
        return replace(file, metadata={**file.metadata, "scores": self.facts(record)})

    def facts(self, record: Scores) -> Scores:
        """Return what a model's file says of its scores, which the model card shows.

        Args:
            record: a line of ``metrics.jsonl`` with scores.
        """
        shown = (
            ("mIoU of a segmenter", "miou", "miou_real", "{:.1%}"),
            ("Fréchet distance of the segmenter's features (lower is better)", "fd", "", "{:.4g}"),
            ("kernel distance of the segmenter's features (lower is better)", "kd", "", "{:.4g}"),
        )
        rows = [
            {
                "name": name,
                "pictures": form.format(record[key]),
                "real": form.format(record[real]) if real else "",
            }
            for name, key, real, form in shown
            if key in record
        ]
        evaluations = self._recipe.diffusion_at(record["step"]).evaluations
        return {
            **{name: record[name] for name in ("step", *_NAMES) if name in record},
            **({"evaluations": evaluations} if evaluations else {}),
            "judge": self._evaluator.sha256,
            "key": self.key,
            "dataset": self._data.info.name,
            "split": f"{SPLIT} (scored during training, at step {record['step']:,}: the generator "
            "was trained on the real images of these masks)",
            "n_masks": len(self.stems),
            "n_generated": len(self.stems),
            "rows": rows,
        }


def open_scorer(recipe: Recipe, data: PreparedDataset, job: Job) -> Scorer | None:
    """Return what scores, on rank 0; None on other ranks. All ranks call it.

    Raises:
        UserError: the evaluator cannot be read, or has no class of the data.
        SystemExit: on other ranks, where rank 0 raises this.
    """
    opened: list[Scorer] = []
    job.run_on_rank0(lambda: opened.append(_open(recipe, data, job)))
    return opened[0] if opened else None


def _open(recipe: Recipe, data: PreparedDataset, job: Job) -> Scorer:
    device = job.accelerator.device
    try:
        with same_random_state(device):
            (evaluator,) = open_evaluators(
                [str(recipe.train.evaluator)], data.labels, None, str(device)
            )
    except UserError as error:
        text = str(error).removeprefix("--segmenter ")
        raise UserError(f"train.evaluator {text}") from None
    return Scorer(evaluator, data, recipe, scoring_batch_size(recipe, job.world))


def scoring_batch_size(recipe: Recipe, world: int) -> int:
    """Return how many images are sampled at once, in no more memory than training takes."""
    train, (height, width) = recipe.train, recipe.step_size
    micro_batch = train.batch_size // (world * train.accumulation)
    pixels = micro_batch * height * width  # trained at once; guidance doubles what is sampled
    return max(1, min(_BATCH, pixels // (2 * recipe.height * recipe.width)))


@contextmanager
def same_random_state(device: torch.device) -> Iterator[None]:
    """Leave the random states of Python, NumPy and PyTorch as they were before."""
    python, numbers = random.getstate(), np.random.get_state()
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)


class BestCheckpoint:
    """``best/`` of a run: the checkpoint with the highest mIoU so far, and its model.

    In the phase ``distill`` the best of that phase alone: its models are sampled otherwise. It
    holds ``state.pt``, ``manifest.json`` (with the scores) and ``final_model.pth``, and is not
    one of the checkpoints that are thinned out. It is replaced as a whole.
    """

    def __init__(self, run: Path, key: str) -> None:
        """Finish what an interrupted process began; one process calls it.

        Args:
            run: folder of the run.
            key: of ``Scorer.key``; a best of another key is replaced by the next score.
        """
        self._run, self._folder, self._key = run, run / BEST, key
        shutil.rmtree(run / _PARTIAL, ignore_errors=True)
        if (run / _OLD).exists() and not self._folder.exists():
            (run / _OLD).rename(self._folder)
        shutil.rmtree(run / _OLD, ignore_errors=True)
        self._found = self._read()

    def _read(self) -> Scores | None:
        """Return the scores of what is kept; None: nothing that could be compared."""
        path = self._folder / MANIFEST
        found = read_json(path).get("scores", {}) if path.is_file() else {}
        if not found:
            return None
        if found.get("key") != self._key:
            logger.warning(
                f"{self._folder}: was scored by another evaluator or on other masks; the next "
                "score replaces it"
            )
            return None
        return dict(found)

    def _is_better(self, facts: Scores) -> bool:
        found, kind = self._found, "evaluations"
        if found is None or found.get(kind) != facts.get(kind):
            return True
        return bool(facts["miou"] > found["miou"])

    def keep(self, model: ModelFile, facts: Scores) -> None:
        """Keep the checkpoint of a step, which is on the disk, if it is the best so far.

        Args:
            model: its averaged weights.
            facts: of ``Scorer.facts``.

        Raises:
            UserError: the disk is full; what was the best so far stays.
        """
        if not self._is_better(facts):
            return
        checkpoint, new = step_folder(self._run, facts["step"]), self._run / _PARTIAL
        try:
            new.mkdir()
            link_or_copy(checkpoint / STATE, new / STATE)
            save_model_file(new / FINAL, model)
            manifest = {**read_json(checkpoint / MANIFEST), "scores": facts}
            write_json(new / MANIFEST, manifest, seal=True)
            to_disk(new)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        if self._folder.exists():
            self._folder.rename(self._run / _OLD)
        new.rename(self._folder)
        shutil.rmtree(self._run / _OLD, ignore_errors=True)
        self._found = facts
        logger.info(f"step {facts['step']}: mIoU {facts['miou']:.3f}, the best so far: {BEST}/")
