"""segments/sidewalk-semantic, or a Hugging Face data set of the same format, row by row.

Columns ``pixel_values`` and ``label`` (encoded images) and an ``id2label.json`` at its root.
The rows are frames of walks, and neighbours look alike: whole blocks of rows are held out, and
training images that are near-duplicates of held-out ones are excluded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semsynth.core.errors import UserError
from semsynth.core.files import read_bytes, read_json
from semsynth.core.rng import derive_seed
from semsynth.data.config import PrepareConfig
from semsynth.data.content import digest_bytes, digest_json
from semsynth.data.image_files.images import image_notes, read_metadata, read_rgb
from semsynth.data.image_files.masks import decide_masks, mask_ids
from semsynth.data.image_files.raw_masks import open_mask
from semsynth.data.label_files.files import LabelFile
from semsynth.data.labels import Color, LabelSet
from semsynth.data.raw.exif import exif_doubt, exif_of
from semsynth.data.raw.source import Layout, Reading, Record, Sample
from semsynth.data.raw.tree import FileTree

REPO = "segments/sidewalk-semantic"
IMAGE, MASK = "pixel_values", "label"
UNLABELLED = ("unlabeled", "unlabelled", "ignore", "void")
BLOCK = 50
LEAST_BLOCKS = 20

# Names in the order of their ids, 0 to 34.
COLORS: dict[str, Color] = {
    "unlabeled": (0, 0, 0),
    "flat-road": (128, 64, 128),
    "flat-sidewalk": (244, 35, 232),
    "flat-crosswalk": (140, 140, 200),
    "flat-cyclinglane": (255, 110, 90),
    "flat-parkingdriveway": (250, 170, 160),
    "flat-railtrack": (230, 150, 140),
    "flat-curb": (196, 196, 196),
    "human-person": (220, 20, 60),
    "human-rider": (255, 0, 0),
    "vehicle-car": (0, 0, 142),
    "vehicle-truck": (0, 0, 70),
    "vehicle-bus": (0, 60, 100),
    "vehicle-tramtrain": (0, 80, 100),
    "vehicle-motorcycle": (0, 0, 230),
    "vehicle-bicycle": (119, 11, 32),
    "vehicle-caravan": (0, 0, 90),
    "vehicle-cartrailer": (0, 0, 110),
    "construction-building": (70, 70, 70),
    "construction-door": (190, 120, 60),
    "construction-wall": (102, 102, 156),
    "construction-fenceguardrail": (190, 153, 153),
    "construction-bridge": (150, 100, 100),
    "construction-tunnel": (150, 120, 90),
    "construction-stairs": (110, 110, 60),
    "object-pole": (153, 153, 153),
    "object-trafficsign": (220, 220, 0),
    "object-trafficlight": (250, 170, 30),
    "nature-vegetation": (107, 142, 35),
    "nature-terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "void-ground": (81, 0, 81),
    "void-dynamic": (111, 74, 0),
    "void-static": (180, 165, 180),
    "void-unclear": (60, 60, 0),
}


def label_set(names: Mapping[int, str]) -> LabelSet:
    """Return the labels of an ``id2label.json``; the first "unlabeled" one is ignored."""
    ignored = [i for i in sorted(names) if names[i].lower() in UNLABELLED]
    things = [n for n in names.values() if n.split("-")[0] in ("human", "vehicle", "object")]
    colors = {i: COLORS[name] for i, name in names.items() if name in COLORS}
    return LabelSet.from_names(dict(names), ignored[0] if ignored else None, colors, things)


LABELS = label_set(dict(enumerate(COLORS)))


@dataclass
class RowSource:
    """The rows of a Hugging Face data set; only a few are in memory at a time."""

    path: str
    licence: str
    labels: LabelSet
    total: int | None
    val_share: float
    seed: int
    near_duplicates: int = 6
    reading: Reading = field(default_factory=lambda: Reading("auto", "row by row", "auto"))
    layout: Layout | None = None
    tree: FileTree | None = None
    sizes: Mapping[tuple[int, int], int] | None = None
    label_file: LabelFile | None = None

    def __post_init__(self) -> None:
        """Derive its name and origin."""
        self.name = "sidewalk" if self.path == REPO else Path(self.path).name
        self.origin = f"Hugging Face data set {self.path}"

    def records(self) -> Iterator[Record]:
        """Stream the rows, images still encoded."""
        with hub_errors(self.path):
            for index, row in enumerate(_rows(self.path)):
                where = f"{self.path}, row {index}"
                payload = tuple(_bytes(row[column], where) for column in (IMAGE, MASK))
                split = split_of_row(index, self.total, self.val_share, self.seed)
                content = digest_json([digest_bytes(data) for data in payload])
                stem = f"row_{index:06d}"
                yield Record(stem, split, where, payload, content=content, group=stem)

    def read(self, record: Record) -> Sample:
        """Decode one row."""
        image, mask = record.payload
        places = f"{record.where}, {IMAGE}", f"{record.where}, {MASK}"
        metadata, raw = read_metadata(image, places[0]), open_mask(mask, places[1])
        stated = None if self.reading.exif == "auto" else self.reading.exif
        exif, notes = exif_of(metadata, [raw.metadata], stated)
        if exif is None:
            raise UserError(exif_doubt(metadata, [raw.metadata]))
        if exif == "ignore" and raw.metadata.orientation != 1:
            raw = open_mask(mask, places[1], exif)
        ids, note = mask_ids(
            raw, self.labels, decide_masks([raw], self.labels, self.reading.masks_as)
        )
        found = (*notes, *image_notes(metadata), *([note] if note else []))
        return Sample(read_rgb(image, places[0], self.reading.window, exif), ids, notes=found)


def split_of_row(index: int, total: int | None, val_share: float, seed: int) -> str:
    """Return train or val for a row: one in several blocks of neighbouring rows is held out.

    Blocks have 50 rows, or a twentieth of the rows if there are fewer than 1,000.
    """
    if val_share <= 0:
        return "train"
    block = BLOCK if total is None else max(1, min(BLOCK, total // LEAST_BLOCKS))
    period = max(2, round(1 / val_share))
    if total is not None:
        period = max(2, min(period, -(-total // block)))
    return "val" if index // block % period == derive_seed(seed, "val block") % period else "train"


def open_source(config: PrepareConfig) -> RowSource:
    """Read the labels and count the rows.

    Raises:
        UserError: no access, no network, no such data set, or another schema.
    """
    if config.data is not None and config.repo != REPO:
        raise UserError(f"--data {config.data} and --repo {config.repo}: give one of them")
    local = config.data
    if local is None and Path(config.repo).is_dir():
        local = Path(config.repo)
    if local is not None and not local.is_dir():
        raise UserError(
            f"{local}: no such folder; --data must be a copy of the data set repository"
        )
    path = config.repo if local is None else str(local)
    with hub_errors(path):
        labels = _read_labels(path, local)
        total = _count(path)
    stated = "CC BY-NC 4.0" if labels == LABELS else "unknown"
    masks_as = config.masks_as
    assert masks_as != "instances", "refused by the configuration"
    return RowSource(
        path=path,
        licence=config.licence or stated,
        labels=labels,
        total=total,
        val_share=config.held_share,
        seed=config.seed,
        reading=Reading(masks_as, "row by row", config.exif or "auto", config.window),
    )


@contextmanager
def hub_errors(path: str) -> Iterator[None]:
    """Turn errors of Hugging Face's libraries into one line that says what to do."""
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from huggingface_hub import errors
    from pyarrow import ArrowException

    page = f"https://huggingface.co/datasets/{path}"
    try:
        yield
    except errors.GatedRepoError:
        raise UserError(_no_access(page)) from None
    except (DatasetNotFoundError, errors.RepositoryNotFoundError) as error:
        if "gated" in str(error).lower() or path == REPO:
            raise UserError(_no_access(page)) from None
        raise UserError(
            f"{path}: no such data set; see {page}, or log in with 'hf auth login'"
        ) from None
    except errors.LocalEntryNotFoundError:
        raise UserError(_no_network(page)) from None
    except errors.EntryNotFoundError:
        raise UserError(f"{path}: has no id2label.json at its root") from None
    except (ConnectionError, TimeoutError, errors.OfflineModeIsEnabled):
        raise UserError(_no_network(page)) from None
    except (
        errors.HfHubHTTPError,
        errors.HFValidationError,
        DatasetsError,
        ArrowException,
    ) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: cannot be read as a data set ({reason})") from None


def _no_access(page: str) -> str:
    return f"no access to {page}: accept its terms there, then log in with 'hf auth login'"


def _no_network(page: str) -> str:
    return (
        f"{page} cannot be reached; check the network, give a local copy with --data, "
        "or take --source streets, which needs no download"
    )


def _read_labels(path: str, local: Path | None) -> LabelSet:
    from huggingface_hub import hf_hub_download

    if local is None:
        file = Path(hf_hub_download(path, "id2label.json", repo_type="dataset"))
    else:
        file = local / "id2label.json"
    stored = read_json(file)
    try:
        names = {int(i): str(name) for i, name in stored.items()}
    except (AttributeError, ValueError):
        raise UserError(f'{file}: must map ids to names, such as {{"0": "unlabeled"}}') from None
    return label_set(names)


def _rows(path: str) -> Iterator[Mapping[str, Any]]:
    from datasets import Image, load_dataset

    rows = load_dataset(path, split="train", streaming=True)
    columns = rows.column_names or []
    if missing := [column for column in (IMAGE, MASK) if column not in columns]:
        raise UserError(f"{path}: has no column '{missing[0]}' (it has {', '.join(columns)})")
    rows = rows.select_columns([IMAGE, MASK])
    for column in (IMAGE, MASK):
        rows = rows.cast_column(column, Image(decode=False))
    return iter(rows)


def _bytes(value: Any, where: str) -> bytes:
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: an image is missing")
    if value.get("bytes") is not None:
        return bytes(value["bytes"])
    return read_bytes(str(value["path"]))


def _count(path: str) -> int | None:
    """Return the number of rows from the footers of the parquet files; None for other files."""
    import fsspec
    import pyarrow.parquet as parquet
    from datasets import load_dataset_builder

    files = (load_dataset_builder(path).config.data_files or {}).get("train", [])
    if not files or not all(str(file).endswith(".parquet") for file in files):
        return None
    total = 0
    for file in files:
        with fsspec.open(str(file), "rb") as opened:
            total += parquet.read_metadata(opened).num_rows
    return total
