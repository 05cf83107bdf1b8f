"""`semsynth export`: what lies at the path decides whether it is a data set or a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from semsynth.core.errors import UserError
from semsynth.data.exports import FORMATS, FormatName, Push, export_dataset
from semsynth.data.info import INFO
from semsynth.pipelines.convert.config import MODEL_FORMATS, ExportConfig
from semsynth.pipelines.formats.pretrained import is_model, pretrained_names


def export(config: ExportConfig) -> dict[str, Any]:
    """Write what ``config`` says; see ``data.exports`` and ``pipelines.convert.export``.

    Raises:
        UserError: a data set to a format of models or the other way round, or as these two.
    """
    is_ours = str(config.source) in pretrained_names()
    if config.to in MODEL_FORMATS:
        if is_data(config.source) and not (is_model(config.source) or is_ours):
            raise UserError(
                f"{config.source}: is a data set ({INFO}), --to {config.to} is for models; "
                f"choose {_either(FORMATS)}"
            )
        from semsynth.pipelines.convert.export import export_model

        return export_model(config)
    of_model = is_model(config.source) or (is_ours and not config.source.exists())
    if of_model and not is_data(config.source):
        raise UserError(
            f"{config.source}: is a model, --to {config.to} is for data sets and samples; "
            f"choose {_either(MODEL_FORMATS)}, or the folder of the images"
        )
    push = None if config.push_to_hub is None else Push(config.push_to_hub, config.private)
    to = cast(FormatName, config.to)
    folders = [config.source, *config.with_]
    return export_dataset(folders, to, config.output, config.synthetic_split, push)


def is_data(path: Path) -> bool:
    """Whether a path is a prepared data set or samples."""
    return (path / INFO).is_file()


def _either(names: Any) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}"
