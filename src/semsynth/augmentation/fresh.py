"""A segmenter's training with new images of a generator in each epoch.

With a model of one evaluation an image of 96x128 costs about a tenth of a segmenter's step on it,
so that no image need be seen twice. An image is a function of its mask, the epoch and the seed:
a training that was interrupted goes on to the bit, and threads change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from semsynth.core.errors import UserError
from semsynth.core.logging import logger
from semsynth.core.rng import derive_seed
from semsynth.data.content import digest_json
from semsynth.data.dataset import PreparedDataset
from semsynth.diffusion.config import SamplerSettings
from semsynth.pipelines.formats.diffusers_folder import checkpoint_sha256
from semsynth.pipelines.formats.pretrained import find_model
from semsynth.pipelines.generate.labels import Masks, translate_labels
from semsynth.pipelines.synthesizer import Synthesizer
from semsynth.segmentation import train as segmentation
from semsynth.segmentation.config import SegmentTrainConfig
from semsynth.segmentation.fit import OnSave
from semsynth.segmentation.loader import Pair, class_indices, index_lut

# More evaluations an image than a distilled model has make a training many times as long.
_FEW = 4


def train(config: SegmentTrainConfig, on_save: OnSave | None = None) -> dict[str, Any]:
    """Run `semsynth segment train`, with ``fresh`` images if they are asked for.

    Args:
        config: the settings.
        on_save: called after each time that the state of the training was written.

    Returns:
        As ``segmentation.train.train``.

    Raises:
        UserError: as there; or the model cannot be read, or does not fit the masks.
    """
    fresh = None if config.fresh is None else GeneratedImages.open(config)
    return segmentation.train(config, fresh, on_save)


class GeneratedImages:
    """Images of the masks of a split, made when they are drawn: a ``FreshImages``.

    Attributes:
        digest: of the model, the masks and the sampler.
    """

    def __init__(
        self, synthesizer: Synthesizer, data: PreparedDataset, split: str, seed: int, model: str
    ) -> None:
        """Make images for the masks of a split.

        Args:
            synthesizer: makes them.
            data: has the masks.
            split: of the masks.
            seed: of the training.
            model: a digest of the generator.

        Raises:
            UserError: labels, instance maps or channels do not fit.
        """
        self._stems = data.stems(split)
        if not self._stems:
            raise UserError(f"{data.root}: split '{split}' has no masks; choose another --extra")
        if not synthesizer.pixels.is_rgb:
            raise UserError(
                f"--fresh: the model makes images of {synthesizer.pixels}, a segmenter takes RGB "
                "of 8 bits"
            )
        if synthesizer.instance_edges and not data.has_instances(split):
            raise UserError(
                f"{data.root}: masks of split '{split}' have no instance maps, whose edges the "
                "model of --fresh was trained with; prepare data that have instances"
            )
        self._data, self._split, self._seed = data, split, seed
        names = [(split, stem) for stem in self._stems]
        labels = translate_labels(data, names, synthesizer.labels)
        to_model = None if labels is None else labels.to_model
        self._masks = Masks(data, to_model, synthesizer.instance_edges)
        self._synthesizer, self._lut = synthesizer, index_lut(data.labels)
        self._settings = synthesizer.complete(SamplerSettings())
        # One image after the other fits a CPU; on a GPU one batch fills it.
        self._lock = Lock()
        masks = data.digest_of([split], ("masks", "instances"))
        self.digest = digest_json([model, masks, str(self._settings)])

    @classmethod
    def open(cls, config: SegmentTrainConfig) -> GeneratedImages:
        """Open the model and the masks of a configuration.

        Raises:
            UserError: one of them cannot be read, or they do not fit.
        """
        assert config.fresh is not None and config.extra is not None
        path = find_model(Path(config.fresh))
        synthesizer = Synthesizer.load(path, device=config.device)
        data = PreparedDataset.open(config.extra)
        model = checkpoint_sha256(path)
        made = cls(synthesizer, data, config.extra_split, config.seed, model)
        if made.evaluations > _FEW:
            logger.warning(
                f"--fresh {config.fresh}: {made.evaluations} evaluations an image, which makes the "
                "training many times as long; distil the model (docs/how-to/one-evaluation.md)"
            )
        return made

    def __len__(self) -> int:
        """Return the number of masks."""
        return len(self._stems)

    @property
    def evaluations(self) -> int:
        """Evaluations of the network for an image."""
        return int(self._settings.steps)

    def pairs(self, indices: Sequence[int], epochs: Sequence[int]) -> list[Pair]:
        """Return new images with their class indices; see ``FreshImages``."""
        if not len(indices):
            return []
        stems = [self._stems[int(i)] for i in indices]
        ids, edges = self._masks.read([(self._split, stem) for stem in stems])
        seeds = [
            derive_seed(self._seed, "fresh", stem, int(epoch)) % 2**31
            for stem, epoch in zip(stems, epochs, strict=True)
        ]
        with self._lock:
            images = self._synthesizer.generate(ids, seeds, self._settings, edges)
        return [(image, self._target(stem)) for image, stem in zip(images, stems, strict=True)]

    def _target(self, stem: str) -> npt.NDArray[np.int16]:
        mask, inside = (
            self._data.read_mask(self._split, stem),
            self._data.content(self._split, stem),
        )
        return class_indices(mask, inside, self._lut)
