"""A package that is not installed is one sentence with what to type in a checkout, whoever needs it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest

from controller import cli

ROOT = Path(__file__).resolve().parents[2]

WITHOUT = """
import sys
for name in sys.argv.pop(1).split(","):
    sys.modules[name] = None
from controller.cli import main
main()
"""


def said(without: str, *arguments: str) -> str:
    """What a command says where modules are not installed; it ends with 1."""
    command = [sys.executable, "-c", WITHOUT, without, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done
    return done.stderr


@pytest.mark.parametrize(
    ("without", "extra", "arguments"),
    [
        ("numba", "emulator", ["experiment", "demo", "--duration", "10"]),
        ("numba", "emulator", ["gnb-mock", "demo", "--duration", "1"]),
        ("numba", "emulator", ["calibrate", "--against", "paper"]),
        ("numba", "vr", ["check-config", "vr-sixteen"]),
        ("numba", "vr", ["controller", "vr-sixteen", "--no-record"]),
        ("scipy", "video", ["check-config", "video-campus"]),
        ("pyarrow", "research", ["experiment", "table-v", "--duration", "10"]),
        ("pyarrow", "research", ["sweep", "nothing.yaml"]),
        ("pyarrow", "research", ["experiment", "study", "--duration", "10"]),
        ("pyarrow", "research", ["export", "{run}", "--out", "{tmp}"]),
        ("scipy", "research", ["compare", "{run}", "{copy}"]),
        ("matplotlib", "report", ["compare", "{run}", "--out", "{tmp}/page.html"]),
        ("matplotlib", "urllc", ["figures", "urllc", "--out", "{tmp}"]),
        ("cryptography", "keys", ["keys", "{tmp}/keys", "--cell", "c"]),
        ("gabriel_client", "openrtist", ["openrtist", "client", "127.0.0.1:9099", "--video", "v.mp4"]),
        ("onnx", "openrtist", ["openrtist", "import-style", "{file}", "{file}"]),
        ("torch", "drl", ["train", "video", "--out", "{tmp}/weights"]),
    ],
)
def test_a_missing_extra_is_named_with_what_to_type(
    tmp_path: Path, without: str, extra: str, arguments: list[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    run = str(ROOT / "tests" / "store" / "version-1")
    copy = str(shutil.copytree(run, tmp_path / "copy"))
    paths = {"tmp": str(tmp_path), "file": str(file), "run": run, "copy": copy}
    filled = [argument.format(**paths) for argument in arguments]
    told = said(without, *filled)
    assert f": .venv/bin/pip install -e '.[{extra}]'" in told, told
    assert f"the package {without}" in told and "Traceback" not in told, told


def test_every_extra_of_the_project_is_known_to_the_command_line() -> None:
    try:
        requires("prbandit")
    except PackageNotFoundError:
        pytest.skip("prbandit is not installed: make install")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for module, extra in (
        ("numba", "emulator"),
        ("jinja2.environment", "report"),
        ("pyarrow.parquet", "research"),
        ("pandas", "research"),
        ("cornac", "vr"),
        ("distributed", "sweep"),
        ("PIL", "openrtist"),
        ("gabriel_server", "openrtist"),
        ("pynvml", "nvml"),
        ("torch", "drl"),
        ("atheris", "fuzz"),
    ):
        assert extra in extras and cli._extra_of(module) == extra, module
    assert cli._extra_of("no_such_module") is None
