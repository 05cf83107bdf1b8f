"""Sphinx settings of the documentation: `make docs` writes build/docs/index.html."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(DOCS))

import generated  # noqa: E402

from semsynth import __version__  # noqa: E402

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_FILES = f"{_PROJECT['urls']['Repository']}/blob/main/"
_LINK = re.compile(r"(\]\()(\.\.?/[^)#\s]+)(#[^)\s]*)?\)")

project = "semsynth"
author = _PROJECT["authors"][0]["name"]
copyright = author
version = release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"semsynth {version}"
html_theme_options = {"source_repository": "", "navigation_with_keys": True}
default_role = "literal"  # `name` in a docstring
smartquotes = False  # --flag stays --flag
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_copyright = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # a test runs the notebook; its outputs are stored in the file

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"no-value": True}
python_use_unqualified_type_names = True
napoleon_use_ivar = True
napoleon_use_rtype = False


def _fill_in(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace `<!-- generated: NAME --> ... <!-- end -->` by that part of the reference."""
    source[0] = generated.fill_in(source[0])


def _link_to_repository(app: Sphinx, docname: str, source: list[str]) -> None:
    """Point relative links that leave docs/ at the repository's site.

    In a checkout, and where the pages are browsed as files, they work as they are.
    """
    folder = (DOCS / docname).parent

    def address(match: re.Match[str]) -> str:
        path = (folder / match[2]).resolve()
        if path.is_relative_to(DOCS) or not path.is_relative_to(ROOT) or not path.exists():
            return match[0]  # a page of the site, or a broken link, which Sphinx reports
        return f"{match[1]}{_FILES}{path.relative_to(ROOT).as_posix()}{match[3] or ''})"

    source[0] = _LINK.sub(address, source[0])


def _plain_paths(app: Sphinx, *rest: Any) -> tuple[str, str] | None:
    """Write a default of `Path("x")` as 'x' in a signature."""
    signature, returned = rest[-2:]
    return signature and (re.sub(r"PosixPath\(('[^']*')\)", r"\1", signature), returned)


def setup(app: Sphinx) -> None:
    """Connect what changes the pages before they are parsed."""
    app.connect("autodoc-process-signature", _plain_paths)
    app.connect("source-read", _fill_in)
    app.connect("source-read", _link_to_repository)
