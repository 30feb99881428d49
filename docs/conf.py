"""How `make docs` builds this folder. Nothing is fetched, and every warning is an error."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "PRBandit"
author = "The PRBandit maintainers"
version = release = _PROJECT["version"]
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "examples"]
highlight_language = "none"
nitpicky = True
myst_heading_anchors = 4
html_theme = "furo"
# The picture of the loop is as wide as a page.
html_theme_options = {"light_css_variables": {"code-font-size": "0.7rem"}}
html_title = f"PRBandit {version}"
html_copy_source = False
html_show_sphinx = False

_INCLUDE = re.compile(r"^```\{include\} (\S+)\n```$", re.MULTILINE)
_GENERATED = re.compile(r"^```\{generated\} (\w[\w.]*):(\w+)((?: \S+)*)\n[^`]*```$", re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()(?!\w+:)([^\s()#]+)")
_PAGES = {
    (DOCS / found[1]).resolve(): page
    for page in DOCS.rglob("*.md")
    for found in _INCLUDE.finditer(page.read_text(encoding="utf-8"))
}
"""Files elsewhere in the tree that a page is made of, and the page."""


def _links(text: str, of: Path, page: Path) -> str:
    """A file's text, with the links that lead from where it lies (``of``) as they lead from a page."""

    def moved(link: re.Match[str]) -> str:
        target = (of.parent / link[1]).resolve()
        return os.path.relpath(_PAGES.get(target, target), page.parent)

    return _LINK.sub(moved, text)


def _read(app: Any, name: str, source: list[str]) -> None:
    """Take in what a page includes and what is generated for it, and lead its links to pages."""
    page = DOCS / f"{name}.md"

    def included(found: re.Match[str]) -> str:
        file = (page.parent / found[1]).resolve()
        app.env.note_dependency(str(file))
        return _links(file.read_text(encoding="utf-8"), file, page)

    text = _INCLUDE.sub(included, _links(source[0], page, page))
    source[0] = _GENERATED.sub(_generated, text)


def _generated(found: re.Match[str]) -> str:
    """The Markdown that ``{generated} MODULE:FUNCTION ARGUMENT ...`` stands for."""
    return str(getattr(import_module(found[1]), found[2])(*found[3].split()))


def setup(app: Any) -> None:
    app.connect("source-read", _read)
