"""Features of real sets, kept from one evaluation to the next.

    <cache>/features/<distance>-<key>.npz     the digest of each image, and its features

Real and training images stay the same while generators come and go. A set is known by the bytes of
its images, never by its path; weights, resize and size are part of the key.
"""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semsynth.core.arrays import arrays_of
from semsynth.core.errors import UserError
from semsynth.core.files import write_bytes
from semsynth.data.content import digest_json
from semsynth.evaluation.inputs.image_set import ImageSet, digest_of
from semsynth.evaluation.metrics.features import FeatureExtractor, Floats
from semsynth.evaluation.metrics.weights import cache_folder
from semsynth.evaluation.protocols import Protocol

# Raised when the same image gives other features.
_FORMAT = 1
MOST_BYTES = 4 << 30


@dataclass(frozen=True)
class FeatureCache:
    """The features of sets of images, measured by one protocol.

    Attributes:
        protocol: says what the extractors see of an image.
        folder: where the files are.
        most_bytes: the files that were used longest ago are removed beyond so many bytes.
    """

    protocol: Protocol
    folder: Path
    most_bytes: int = MOST_BYTES

    @classmethod
    def of(cls, protocol: Protocol) -> FeatureCache:
        """Return the cache of this user."""
        return cls(protocol, cache_folder() / "features")

    def read(self, images: ImageSet, extractor: FeatureExtractor) -> Floats | None:
        """Return the features (N, D) of a set in its order; None if they are not known."""
        path = self._path(images, extractor)
        try:
            arrays = arrays_of(path.read_bytes())
            known = dict(zip(arrays["digests"].tolist(), arrays["rows"], strict=True))
            rows = np.stack([known[digest] for digest in images.digests().values()])
        except (OSError, ValueError, KeyError):
            return None  # missing, or damaged: it is measured
        with suppress(OSError):
            path.touch()
        return rows

    def write(self, images: ImageSet, extractor: FeatureExtractor, rows_ND: Floats) -> None:
        """Keep the features (N, D) of a set, in its order; a full or read-only disk is ignored."""
        if self.read(images, extractor) is not None:
            return
        buffer = io.BytesIO()
        np.savez(buffer, digests=np.array(list(images.digests().values())), rows=rows_ND)
        with suppress(OSError, UserError):
            write_bytes(self._path(images, extractor), buffer.getvalue())
            self._remove_oldest()

    def _path(self, images: ImageSet, extractor: FeatureExtractor) -> Path:
        sizes = sorted({images.size(stem) for stem in images.stems})
        protocol = self.protocol
        seen = (protocol.distance_size, protocol.distance_filter, protocol.real_filter, sizes)
        network = [extractor.weights, extractor.resize, extractor.about]
        key = digest_json([_FORMAT, digest_of(images), network, seen])
        return self.folder / f"{extractor.name}-{key[:24]}.npz"

    def _remove_oldest(self) -> None:
        files = [(path.stat(), path) for path in self.folder.glob("*.npz")]
        total = 0
        for status, path in sorted(files, key=lambda item: -item[0].st_mtime_ns):
            total += status.st_size
            if total > self.most_bytes:
                path.unlink(missing_ok=True)
