"""``--from-image``: the real images of the masks, and the regions of them to regenerate."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semsynth.core.errors import UserError, abbreviate
from semsynth.core.files import read_bytes
from semsynth.core.logging import progress
from semsynth.data.content import digest_bytes, digest_json
from semsynth.data.dataset import PreparedDataset
from semsynth.data.image_files.channels import PixelForm
from semsynth.pipelines.generate.config import GenerateConfig
from semsynth.pipelines.generate.sample_store import SampleSpec

if TYPE_CHECKING:
    from semsynth.pipelines.from_image import FromImage

REGIONS = "regions"


class RealImages:
    """The images that samples start from, by their masks; what of them decides the samples.

    Attributes:
        key: what they add to the key of the samples' folder.
        inputs: digests by ``split/stem`` of what the key has digests of.
    """

    def __init__(
        self, config: GenerateConfig, data: PreparedDataset, specs: Sequence[SampleSpec]
    ) -> None:
        """Look at the images and regions of ``specs``; without the model.

        Raises:
            UserError: a mask without an image or, with ``config.keep``, without a region; or a
                region of another size or with other values than 0 and 255.
        """
        self._config, self._data = config, data
        sources = list(dict.fromkeys(spec.source for spec in specs))
        split = config.split
        missing = [stem for stem in sources if not data.record(split, stem).image]
        if missing:
            raise UserError(
                f"{data.root}: --from-image needs an image of each mask of split '{split}', there "
                f"is none of {abbreviate(missing)}"
            )
        self._sources = sources
        self.key: dict[str, Any] = {"images": data.digest_of([split], ("images",))}
        self.inputs = {"images": data.digests([split], ("images",))}
        self._regions: dict[str, str] = {}
        if config.keep is not None:
            self._regions = self._check_regions()
            named = {f"{split}/{stem}": digest for stem, digest in self._regions.items()}
            self.key[REGIONS], self.inputs[REGIONS] = digest_json(named), named

    def _path(self, stem: str) -> Path:
        return self._data.root / REGIONS / self._config.split / f"{stem}.png"

    def _check_regions(self) -> dict[str, str]:
        """Return the digests of the regions of the split."""
        from semsynth.pipelines.from_image import read_region

        missing = [stem for stem in self._sources if not self._path(stem).is_file()]
        if missing:
            raise UserError(
                f"{self._data.root}: --keep outside needs {REGIONS}/{self._config.split}/STEM.png, "
                "255 where an image was edited, as 'semsynth edit' writes them; there is none of "
                f"{abbreviate(missing)}"
            )
        stems = [s for s in self._data.stems(self._config.split) if self._path(s).is_file()]
        size = (self._data.height, self._data.width)
        found = {}
        for stem in progress(stems, "reading regions", len(stems), "region"):
            path = self._path(stem)
            region = read_region(path)
            if region.shape != size:
                raise UserError(
                    f"{path}: is {region.shape[1]}x{region.shape[0]}, its image "
                    f"{size[1]}x{size[0]}; make it again"
                )
            found[stem] = digest_bytes(read_bytes(path))
        return found

    def check_form(self, model: PixelForm) -> None:
        """Check that the images are as the model's.

        Raises:
            UserError: they have other channels or bits.
        """
        if self._data.pixels != model:
            raise UserError(
                f"{self._data.root}: images have {self._data.pixels}, the model's {model}; "
                "--from-image needs the same: prepare them as the model's were"
            )

    @cached_property
    def listed(self) -> dict[str, dict[str, str]]:
        """What the manifest says of the samples of each mask: digests of image and region."""
        images = self._data.file_digests(self._config.split, ("images",))
        found = {stem: {"image_digest": images[stem]["images"]} for stem in self._sources}
        for stem in self._sources if self._regions else ():
            found[stem]["region_digest"] = self._regions[stem]
        return found

    def read(self, names: Sequence[tuple[str, str]]) -> FromImage:
        """Return the images and regions of masks by split and stem.

        Raises:
            UserError: a file that is not the one that was there when the command began.
        """
        from semsynth.pipelines.from_image import FromImage, read_region

        images = np.stack([self._data.read_image(*name) for name in names])
        regions = None
        if self._regions:
            regions = np.stack([read_region(self._path(stem)) for _, stem in names])
        return FromImage(images, self._config.chosen_strength, regions)
