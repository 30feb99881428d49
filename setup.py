"""What pyproject.toml cannot say: what is built records the commit that it was built from."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent
RECORD = Path("wire/_build.py")
VARIABLE = "PRBANDIT_COMMIT"
"""Names the commit where there is no git, as in the build of an image."""


def record(folder: str) -> None:
    """Write the commit into a tree that is about to be packed; one that came with the sources stays."""
    if (ROOT / RECORD).exists():
        return
    version = runpy.run_path(str(ROOT / "wire/version.py"))
    given = os.environ.get(VARIABLE, "")
    commit = version["abbreviated"](given)
    if given and not commit:
        raise SystemExit(
            f"{VARIABLE}: {given!r} is no commit: 7 to 64 hexadecimal digits, or these and .dirty"
        )
    path = Path(folder) / RECORD
    path.write_text(f"COMMIT = {commit or version['of_checkout'](ROOT)!r}\n", encoding="utf-8")


class BuildPy(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            record(self.build_lib)


class Sdist(sdist):
    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        record(base_dir)


setup(cmdclass={"build_py": BuildPy, "sdist": Sdist})
