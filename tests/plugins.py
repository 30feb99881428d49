"""Distributions of others, as installing them leaves them: their modules, and what they bring along."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"


def installed(project: Path, folder: Path) -> Path:
    """A project with a ``pyproject.toml`` as ``pip install --target`` leaves it; returns ``folder``."""
    about = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    shutil.copytree(
        project, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.toml", "__pycache__")
    )
    write_metadata(folder, about["name"], about["version"], about["entry-points"])
    return folder


def distribution(
    folder: Path, name: str, entry_points: Mapping[str, Mapping[str, str]], modules: Mapping[str, str]
) -> Path:
    """A distribution of some modules (name -> text); returns ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)
    write_metadata(folder, name, "1.0", entry_points)
    return folder


def write_metadata(
    folder: Path, name: str, version: str, entry_points: Mapping[str, Mapping[str, str]]
) -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = (
        f"[{group}]\n" + "".join(f"{entry} = {value}\n" for entry, value in of.items())
        for group, of in entry_points.items()
    )
    (info / "entry_points.txt").write_text("\n".join(groups))
