"""Where raw images come from: one small file a data set, and the table of them.

A source is a module with a function ``open_source(config)`` that checks what is cheap to check (the
folder, the pairs, the headers) and returns something with the attributes of ``base.Source``. To
add one, write the module and add a line to ``SOURCES`` and a name to ``config.SourceName``.
"""

from __future__ import annotations

from importlib import import_module

from semsynth.data.config import PrepareConfig
from semsynth.data.sources.base import Source

# Modules by the name that --source takes; only the one that is used is imported.
SOURCES = {
    "ade20k": "semsynth.data.sources.ade20k",
    "camvid": "semsynth.data.sources.camvid",
    "celebamask": "semsynth.data.sources.celebamask",
    "cityscapes": "semsynth.data.sources.cityscapes",
    "cocostuff": "semsynth.data.sources.cocostuff",
    "folder": "semsynth.data.sources.folder",
    "sidewalk": "semsynth.data.sources.sidewalk",
    "streets": "semsynth.data.sources.streets",
}


def open_source(config: PrepareConfig) -> Source:
    """Open the source that ``config`` names; UserError when its raw data are not as they should."""
    source: Source = import_module(SOURCES[config.source]).open_source(config)
    return source
