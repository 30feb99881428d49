"""`make wheel`: installs the wheel in an environment of its own, off the checkout, and tries it there."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("agents", "controller", "openrtist", "wire")
ELSEWHERE = ("openrtist/example.png", "wire/vectors/")
"""In the folders of the packages, and no part of them."""
TRIED = (
    ("--version",),
    ("scenarios",),
    ("policies",),
    ("services",),
    ("check-config", "demo"),
    ("check-config", "--reference"),
    ("experiment", "mucb1-1", "--policy", "default", "--seed", "1", "--duration", "20", "--run", "run"),
    ("report", "run"),
)
"""Commands, with the extras emulator and report: the scenarios, the pages and the compiled cell are there."""


def missing(wheel: Path) -> list[str]:
    """Files of the packages that the wheel does not have."""
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    files = (path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file())
    names = (str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts)
    return sorted(name for name in names if name not in packed and not name.startswith(ELSEWHERE))


def main() -> None:
    (wheel,) = (Path(argument).resolve() for argument in sys.argv[1:])
    if lacks := missing(wheel):
        sys.exit(f"{wheel.name} lacks {', '.join(lacks)}: see package-data in pyproject.toml")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", "venv"], cwd=folder, check=True)
        program = Path(folder) / "venv/bin"
        pip = [program / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, f"{wheel}[emulator,report]"], cwd=folder, check=True)
        for arguments in TRIED:
            print(f"prbandit {' '.join(arguments)}", flush=True)
            done = subprocess.run(
                [program / "prbandit", *arguments], cwd=folder, capture_output=True, text=True, check=False
            )
            if done.returncode:
                sys.exit(
                    f"{done.stdout}{done.stderr}prbandit {' '.join(arguments)}: ended with {done.returncode}"
                )
        if not (Path(folder) / "run/report.html").is_file():
            sys.exit("prbandit report wrote no report.html")
    print(f"{wheel.name}: whole, and what was tried of it works")


if __name__ == "__main__":
    main()
