"""What leaves the studio: how an image was made, its files, and a zip of a session."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args

from semsynth.app.library import Item, Library
from semsynth.app.refused import Refused
from semsynth.app.results import Result, ResultStore
from semsynth.core.version import __version__
from semsynth.data.image_files.channels import encode_image
from semsynth.data.prepare.understood import yaml_of
from semsynth.pipelines.formats.model_file import training_origin

if TYPE_CHECKING:
    from semsynth.app.models import StudioModel

Json = dict[str, Any]
Kind = Literal["image", "mask", "color"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_FOLDERS: dict[Kind, str] = {"image": "images", "mask": "masks", "color": "colored_masks"}
# Of a zip: the store of results keeps about so many of 512x512.
MOST_RESULTS = 200
DRAWN = "drawn"


def made(
    result: Result, model: StudioModel, mask_from: Json | None, pixels_from: list[Json]
) -> Json:
    """Return how an image was made, as the manifest of samples says it: JSON values.

    Args:
        result: the image.
        model: that made it.
        mask_from: the mask that it was begun from; None: it was drawn.
        pixels_from: the images of the data whose pixels it may show.
    """
    synthesizer, settings = model.synthesizer, result.settings
    found: Json = {
        "seed": result.seed,
        "sampler": settings.sampler,
        "steps": settings.steps,
        "guidance_scale": settings.guidance_scale,
        "model": model.name,
        "checkpoint": synthesizer.checkpoint_sha256,
        "codec_block": synthesizer.codec.downscale,
        **training_origin(synthesizer.metadata),
        "mask_from": mask_from or DRAWN,
        "quality": result.quality,
        "semsynth": __version__,
    }
    if tuple(settings.guidance_interval) != (0.0, 1.0):
        found["guidance_interval"] = list(settings.guidance_interval)
    if result.variation is not None:
        found["variation"] = {"seed": result.variation[0], "amount": result.variation[1]}
    found |= result.begun
    if pixels_from:
        found["pixels_from"] = pixels_from
    return found


def image_file(result: Result, model: StudioModel, kind: Kind) -> bytes:
    """Return a PNG: the image, the ids of the mask (16 bits with one above 255), or its colours.

    An image that no PNG holds (of other channels than 1 and 3) is given as it is shown.
    """
    if kind == "mask":
        return encode_image(result.mask_HW.astype(model.mask_labels.mask_dtype), "png")
    if kind == "color":
        return encode_image(model.mask_labels.colorize(result.mask_HW), "png")
    form = model.synthesizer.pixels
    if form.is_rgb or form.channels not in (1, 3):
        return result.png
    return encode_image(result.image_HWC, "png")


def item_facts(item: Item, library: Library) -> Json:
    """Return which image of the data one is, as metadata have it."""
    return {"data": library.data.info.name, "split": item.split, "stem": item.stem}


def session_zip(
    ids: list[str],
    results: ResultStore,
    models: dict[str, StudioModel],
    made_of: Callable[[Result], Json],
) -> Iterator[bytes]:
    """Return a zip of images, masks, coloured masks, labels and metadata, piece by piece.

    One image is encoded at a time. Those that are no longer kept are named in the metadata.

    Args:
        ids: of the results.
        results: what is kept.
        models: by id.
        made_of: what is said of each (``made``).

    Raises:
        Refused: too many, or none of them is kept.
    """
    if not ids or not all(isinstance(name, str) for name in ids):
        raise Refused("results: give the ids of the images, at least one")
    if len(ids) > MOST_RESULTS:
        raise Refused(f"{len(ids)} images: a zip has {MOST_RESULTS} at most; choose some")
    found = {name: results.find(name) for name in dict.fromkeys(ids)}
    kept = [entry for entry in found.values() if isinstance(entry, Result)]
    if not kept:
        raise Refused("none of these images is kept any more: generate them again", 404)
    lost = [name for name, entry in found.items() if not isinstance(entry, Result)]
    return zip_of(_members(kept, lost, models, made_of))


def _members(
    kept: list[Result],
    lost: list[str],
    models: dict[str, StudioModel],
    made_of: Callable[[Result], Json],
) -> Iterator[tuple[str, bytes]]:
    """Return a session as `prepare` reads it; of several models a folder for each."""
    several = len({result.model for result in kept}) > 1
    lines: list[Json] = []
    used: dict[str, StudioModel] = {}
    for number, result in enumerate(kept, 1):
        model = models[result.model]
        folder = f"{result.model}/" if several else ""
        used[folder] = model
        names = {kind: f"{folder}{_FOLDERS[kind]}/{number:03d}.png" for kind in KINDS}
        for kind, name in names.items():
            yield name, image_file(result, model, kind)
        files = {"file_name": names["image"], "mask": names["mask"], "color": names["color"]}
        if (numbers := model.objects(result.mask_HW, result.instances_HW)) is not None:
            files["instances"] = f"{folder}instances/{number:03d}.png"
            yield files["instances"], encode_image(numbers, "png")
        lines.append({**files, **made_of(result)})
    lines += [{"id": name, "missing": "no longer kept"} for name in lost]
    yield "metadata.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode()
    for folder, model in used.items():
        text = yaml_of(model.mask_labels, "a session of the studio", model.synthesizer.licence)
        yield f"{folder}labels.yaml", text.encode()


def zip_of(members: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
    """Return a zip of files by name, in pieces; PNGs are stored as they are."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as file:
        for name, data in members:
            # Without a date: the same session gives the same zip.
            file.writestr(zipfile.ZipInfo(name), data)
            yield sink.take()
    yield sink.take()


class _Sink(io.RawIOBase):
    """Takes what is written, and cannot go back."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)
