"""`semsynth edit`: from a prepared data set to edited pairs, a data set of their own."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from semsynth.augmentation.edits.config import KINDS, EditConfig, Kind
from semsynth.augmentation.edits.donors import Donors, open_donors
from semsynth.augmentation.edits.draw import FEW_SWAPS, Drawer, class_weights
from semsynth.augmentation.edits.kinds import region
from semsynth.augmentation.edits.preview import clear_preview, preview
from semsynth.augmentation.edits.relabel import swaps
from semsynth.augmentation.edits.scene import Scene, learn
from semsynth.augmentation.edits.survey import LEAST, ImageSurvey, Piece, Surveyor
from semsynth.core.errors import UserError, abbreviate
from semsynth.core.files import named, read_bytes, write_bytes, write_text
from semsynth.core.logging import logger, progress_bar
from semsynth.core.outputs import Output, read_result
from semsynth.core.strict import SEAL, is_whole, sealed
from semsynth.data.dataset import PreparedDataset
from semsynth.data.image_files.channels import encode_image
from semsynth.data.labels import LabelSet
from semsynth.data.manifest import EDITS, read_manifest
from semsynth.data.prepare.pool import run_all
from semsynth.data.records import ImageRecord, PreparedFormat
from semsynth.data.writer import PreparedSample, PreparedWriter, record_of, write_sample

KIND = "edited"
# Fewer images have no layout to learn.
_LEAST_IMAGES = 4
_PART = ".edits.part.jsonl"
# What of the flags decides an edit.
_IN_KEY = (
    "split",
    "objects",
    "rare_weight",
    "donor_split",
    "donor_kind",
    "to_kind",
    "upright",
    "seed",
)


def edit(config: EditConfig) -> dict[str, Any]:
    """Make edited pairs as ``config`` says; return JSON values.

    Raises:
        UserError: nothing to edit, or no valid edit was found; or the output is something else's.
    """
    drawer = prepare_edits(config)
    if config.preview:
        return preview(config, drawer)
    return _write(config, drawer)


def prepare_edits(config: EditConfig) -> Drawer:
    """Open the data, learn what its masks say, and return what makes the edits.

    Raises:
        UserError: fewer than 4 images, a class without objects, or scores of no class.
    """
    data = PreparedDataset.open(config.data)
    stems = _stems(config, data)
    wanted = _wanted(config, data)
    ious = None if config.hard is None else read_ious(config.hard, data.labels)
    surveys: list[ImageSurvey] = []
    with progress_bar(len(stems), "reading masks", "mask") as bar:

        def take(survey: ImageSurvey) -> None:
            surveys.append(survey)
            bar.update()

        run_all(Surveyor(data, config.split), stems, take, config.workers, len(stems))
    surveys.sort(key=lambda survey: survey.stem)
    scene = learn(surveys, data.labels, (data.height, data.width), wanted, config.upright)
    weights = class_weights(scene, data.labels.names, config.rare_weight, ious)
    donors = _donors(config, data, scene)
    becomes = _swaps(scene, wanted)
    kinds = _kinds(config, scene, sum(map(len, becomes.values())), donors is not None)
    if {"transplant", "move", "remove"} & set(kinds):
        _check_objects(scene, wanted, data, config.split)
    _say(scene, data, kinds)
    return Drawer(
        data=data,
        split=config.split,
        stems=tuple(stems),
        scene=scene,
        kinds=kinds,
        weights=weights,
        seed=config.seed,
        swaps=becomes,
        donors=donors,
        objects=config.objects,
    )


def _donors(config: EditConfig, data: PreparedDataset, scene: Scene) -> Donors | None:
    """Return where foreign masks are from; None: none are wanted, or there are none."""
    if config.chosen and "foreign" not in config.chosen:
        return None
    if config.donors is None and config.donor_kind is None and config.to_kind is None:
        if config.chosen:
            raise UserError(
                "--kinds foreign needs masks: give --donors FOLDER, or --to-kind (and "
                "--donor-kind) of data with several kinds of images"
            )
        return None
    return open_donors(config, data, np.flatnonzero(scene.pixels).tolist())


def _swaps(scene: Scene, wanted: list[int]) -> dict[int, list[Piece]]:
    found = swaps(scene)
    if not wanted:
        return found
    some = {to: [p for p in pieces if p.label in wanted] for to, pieces in found.items()}
    return {to: pieces for to, pieces in some.items() if pieces}


def _stems(config: EditConfig, data: PreparedDataset) -> list[str]:
    stems = data.stems(config.split)
    if config.to_kind is not None:
        kinds = {stem: data.record(config.split, stem).kind for stem in stems}
        stems = [stem for stem in stems if kinds[stem] == config.to_kind]
        known = sorted({kind for kind in kinds.values() if kind})
        if not stems:
            raise UserError(
                f"--to-kind: no image of {data.root} is of the kind '{config.to_kind}'; "
                f"{'its kinds are ' + abbreviate(known) if known else 'it records none'}"
            )
    if len(stems) < _LEAST_IMAGES:
        raise UserError(
            f"{data.root}: split '{config.split}' has {len(stems)} images to edit; at least "
            f"{_LEAST_IMAGES} are needed"
        )
    if not data.has_images(config.split):
        raise UserError(
            f"{data.root}: split '{config.split}' has masks without images; edits need both"
        )
    return stems


def _wanted(config: EditConfig, data: PreparedDataset) -> list[int]:
    """Return the ids of ``--classes``; each must have enough pixels."""
    ids = {label.name: label.id for label in data.labels.labels}
    pixels = data.info.splits[config.split].class_pixels
    for name in config.classes:
        if name not in ids or ids[name] == data.labels.ignore_id:
            known = abbreviate([n for n, i in ids.items() if i != data.labels.ignore_id], 12)
            raise UserError(f"--classes: '{name}' is not a class of {data.root}; it has {known}")
        if pixels.get(name, 0) < LEAST:
            raise UserError(
                f"--classes: '{name}' has {pixels.get(name, 0)} pixels in '{config.split}' of "
                f"{data.root}; at least {LEAST} are needed for an object"
            )
    return [ids[name] for name in config.classes]


def read_ious(path: Path, labels: LabelSet) -> dict[str, float]:
    """Read the IoU of each class from a JSON file: the first ``per_class`` in it, at any depth.

    Raises:
        UserError: no file, or none with these classes.
    """

    def search(value: Any) -> dict[str, float] | None:
        if not isinstance(value, dict):
            return None
        found = value.get("per_class")
        if isinstance(found, dict):
            ious = {n: x.get("iou") if isinstance(x, dict) else x for n, x in found.items()}
            return {n: float(x) for n, x in ious.items() if isinstance(x, int | float)}
        return next((some for inner in value.values() if (some := search(inner))), None)

    if not path.is_file():
        raise UserError(f"--hard: {path}: no such file; give segmenter.json or report.json")
    ious = search(read_result(path))
    if ious is None:
        raise UserError(f"{path}: has no IoU by class (`per_class`); give segmenter.json")
    known = {name: iou for name, iou in ious.items() if name in set(labels.names.values())}
    if not known:
        raise UserError(
            f"{path}: its classes ({abbreviate(list(ious))}) are not those of the data; give the "
            "scores of a segmenter of the same labels"
        )
    return known


def _kinds(config: EditConfig, scene: Scene, n_swaps: int, has_donors: bool) -> tuple[Kind, ...]:
    """Return the kinds of edits: those that were asked for, or all that the data allow.

    Raises:
        UserError: one that was asked for is not possible.
    """
    cannot: dict[Kind, str] = {}
    if not n_swaps:
        cannot["swap"] = "no two classes have the same place and shape"
    elif n_swaps < FEW_SWAPS and not config.chosen:
        cannot["swap"] = f"only {n_swaps} pieces have the place and shape of another class"
    if scene.ignore_id is None:
        cannot["partial"] = "the labels have no ignored id; prepare the data with one"
    if not has_donors:
        cannot["foreign"] = "no --donors"
    if not any(scene.pieces.get(i) for i in np.flatnonzero(scene.objects).tolist()):
        for kind in ("transplant", "move", "remove"):
            cannot[kind] = "no class comes as whole objects; say which are with --classes"
    for kind in config.chosen:
        if kind in cannot and not (kind in ("transplant", "move", "remove") and config.classes):
            raise UserError(f"{config.data}: --kinds {kind}: {cannot[kind]}")
    if config.chosen:
        return config.chosen
    left = tuple(kind for kind in KINDS if kind not in cannot)
    for kind in (kind for kind in KINDS if kind in cannot):
        logger.info(f"no {kind}: {cannot[kind]}")
    if not left:
        raise UserError(
            f"{config.data}: nothing can be edited; give the classes of objects with --classes"
        )
    return left


def _check_objects(scene: Scene, wanted: list[int], data: PreparedDataset, split: str) -> None:
    without = [i for i in wanted if not scene.pieces.get(i)]
    if without:
        raise UserError(
            f"{data.root}: split '{split}' has no whole object of '{data.labels.names[without[0]]}'"
            f" ({LEAST} pixels or more, not cut by the border); choose other --classes"
        )


def _say(scene: Scene, data: PreparedDataset, kinds: tuple[Kind, ...]) -> None:
    names = data.labels.names
    objects = [
        f"{names[i]} ({len(scene.pieces[i])})"
        for i in np.flatnonzero(scene.objects).tolist()
        if scene.pieces.get(i)
    ]
    if not scene.upright:
        layout = "no up and down: objects are turned and mirrored, at any place"
    elif scene.horizon is None:
        layout = "an up and a down; sizes do not depend on the row"
    else:
        layout = f"an up and a down; objects stand below row {scene.horizon:.0f}, larger below"
    logger.info(f"{data.root}: {layout}")
    logger.info(f"objects: {abbreviate(objects, 12)}; edits: {', '.join(kinds)}")


@dataclass(frozen=True)
class _EditJob:
    """Makes an edit and writes its files, in any process."""

    drawer: Drawer
    root: Path
    form: PreparedFormat
    margin: int

    def run(self, index: int, /) -> tuple[dict[str, Any], ImageRecord]:
        drawn, data = self.drawer.draw(index), self.drawer.data
        split, pair = self.drawer.split, drawn.edited.pair
        info = data.record(split, drawn.source)
        sample = PreparedSample(
            pair.image,
            pair.mask,
            data.original_size(split, drawn.source),
            pair.content,
            pair.instances,
            info.resize,
        )
        path = self.root / region_path(split, drawn.stem)
        area = region(drawn.edited.changed & drawn.before.inside, self.margin)
        write_bytes(path, encode_image(area * drawn.before.inside, "png"))
        record = write_sample(self.root, self.form, split, drawn.stem, sample)
        return drawn.line, replace(record, group=info.group or "", kind=info.kind or "")


def region_path(split: str, stem: str) -> str:
    """Return the path of the region of an edited pair, below its data set."""
    return f"regions/{split}/{stem}.png"


def _write(config: EditConfig, drawer: Drawer) -> dict[str, Any]:
    data = drawer.data
    clear_preview(config.output)
    output = _output(config, drawer)
    if not output.is_ours():
        drawer.draw(0)  # where none is valid, no folder is claimed for settings to be changed
    root = output.claim()
    form = PreparedFormat(data.labels, data.height, data.width, data.info.resize, "png")
    form = form.with_pixels(data.pixels)
    writer = PreparedWriter(root, form, KIND, output.key)
    lines = _lines_there(root)
    if writer.is_finished and len(lines) >= config.count:
        logger.info(f"{root}: has already {len(lines)} edits")
        return _summary(root, lines)
    _take_up(writer, lines, data, config.split)
    left = [index for index in range(config.count) if index not in lines]
    job = _EditJob(drawer, root, form, config.margin_of(data.height))
    with progress_bar(config.count, "edit", "pair", initial=len(lines)) as bar:

        def take(result: tuple[dict[str, Any], ImageRecord]) -> None:
            line, record = result
            writer.add(record)
            with named(root / _PART), (root / _PART).open("a", encoding="utf-8") as file:
                file.write(json.dumps(sealed(line)) + "\n")
            lines[line["index"]] = line
            bar.update()

        run_all(job, left, take, config.workers, len(left))
    ordered = [lines[index] for index in sorted(lines)]
    write_text(root / EDITS, "".join(json.dumps(line) + "\n" for line in ordered))
    (root / _PART).unlink(missing_ok=True)
    info, licence = data.info, data.info.licence
    if drawer.donors is not None and drawer.donors.data.info.licence != licence:
        licence += f"; masks of donors: {drawer.donors.data.info.licence}"
    writer.finish(info.name, f"edited pairs of: {info.source}", licence)
    output.complete()
    return _summary(root, lines)


def _output(config: EditConfig, drawer: Drawer) -> Output:
    """Return the folder, and what decides the edits; their number does not."""
    flags = {name: value for name, value in asdict(config).items() if name in _IN_KEY}
    key: dict[str, Any] = {"format": 1, **flags, "kinds": list(drawer.kinds)}
    key["margin"] = config.margin_of(drawer.data.height)
    key["classes"] = sorted(config.classes)
    key["weights"] = [float(f"{weight:.9g}") for weight in drawer.weights]
    key["images"] = drawer.data.digest_of([config.split])
    inputs = {"images": drawer.data.digests([config.split])}
    if (donors := drawer.donors) is not None:
        key["donors"] = donors.data.digest_of([donors.split], ("masks", "instances"))
        key["to_ours"] = donors.to_ours.tolist()
        inputs["donors"] = donors.data.digests([donors.split], ("masks", "instances"))
    return Output(config.output, KIND, key, inputs, config.overwrite)


def _lines_there(root: Path) -> dict[int, dict[str, Any]]:
    """Return what was made before, by number.

    Raises:
        UserError: the list of a finished folder is damaged.
    """
    finished = read_manifest(root)
    for number, line in enumerate(finished, 1):
        if not isinstance(line.get("index"), int):
            raise UserError(
                f"{root / EDITS}: line {number} has no number (index); remove the file and run the "
                "command again"
            )
    lines: dict[int, dict[str, Any]] = {line["index"]: line for line in finished}
    path = root / _PART
    data = read_bytes(path) if path.exists() else b""
    for text in data.decode(errors="replace").splitlines():
        try:
            line = json.loads(text)
            if is_whole(line):
                lines[line["index"]] = {k: v for k, v in line.items() if k != SEAL}
        except (ValueError, AttributeError, KeyError):
            continue  # a killed run cut it short, or it is damaged: that edit is made again
    return lines


def _take_up(
    writer: PreparedWriter, lines: dict[int, dict[str, Any]], data: PreparedDataset, split: str
) -> None:
    """Record the edits of earlier runs; those without files are made again."""
    known = PreparedDataset.open(writer.root) if writer.is_finished else None
    for index, line in list(lines.items()):
        if writer.done(split, line["stem"]):
            continue
        if known is None:
            del lines[index]
            continue
        info, source = known.record(split, line["stem"]), data.record(split, line["source"])
        record = record_of(writer.root, writer.form, split, line["stem"], info)
        writer.add(replace(record, group=source.group or "", kind=source.kind or ""))


def _summary(root: Path, lines: dict[int, dict[str, Any]]) -> dict[str, Any]:
    kinds: dict[str, int] = {}
    classes: dict[str, int] = {}
    for line in lines.values():
        kinds[line["kind"]] = kinds.get(line["kind"], 0) + 1
        for name in (line["class"], *(more["class"] for more in line.get("also", ()))):
            if name:
                classes[name] = classes.get(name, 0) + 1
    return {
        "output": str(root),
        "edits": len(lines),
        "kinds": kinds,
        "classes": classes,
        "summary": ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())),
    }
