"""The glue's CMakeLists.txt finds its version, and the flags of the user's build, or says what is wrong."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.test_oai import MAC, ROWS, plant, plant_cells

GLUE = Path(__file__).parents[2] / "oai_patches" / "glue"
pytestmark = [
    pytest.mark.skipif(shutil.which(tool) is None, reason=f"needs {tool}") for tool in ("cmake", "cc")
]

NINJA = """\
build CMakeFiles/L2_NR.dir/openair2/LAYER2/NR_MAC_gNB/config.c.o: C /x/config.c
  DEFINES = -DWRONG
  INCLUDES = -I/wrong
build CMakeFiles/L2_NR.dir/openair2/LAYER2/NR_MAC_gNB/main.c.o: C /x/main.c
  DEFINES = -DMAX_NUM_CCs=1 -DTEXT=\\"two\\ words\\"
  FLAGS = -O2
  INCLUDES = -I/somewhere/include
"""


def configure(tree: Path, build: Path) -> tuple[int, str]:
    made = subprocess.run(
        ["cmake", "-S", str(GLUE), "-B", str(build), f"-DOAI_DIR={tree}", f"-DOAI_BUILD_DIR={tree / 'b'}"],
        capture_output=True,
        text=True,
    )
    return made.returncode, made.stdout + made.stderr


@pytest.mark.parametrize("version", list(ROWS))
def test_the_header_holds_the_names_of_the_tree_s_version(tmp_path: Path, version: str) -> None:
    tree = plant(tmp_path / "oai", version)
    _, out = configure(tree, tmp_path / "build")
    assert f"OAI {version}" in out
    header = (tmp_path / "build" / "generated" / "oai_version.h").read_text()
    for name, value in ROWS[version]["defines"].items():
        assert f"#define {name} {value}\n" in header
    for function in ROWS[version]["functions"]:
        assert f'"{function["name"]}"' in header


def test_a_tree_that_was_not_built_is_refused(tmp_path: Path) -> None:
    status, out = configure(plant(tmp_path / "oai", "2024.w21"), tmp_path / "build")
    assert status != 0 and "OAI_BUILD_DIR=" in out and "build nr-softmodem first" in out


def test_the_flags_are_those_of_the_mac_in_the_user_s_build(tmp_path: Path) -> None:
    tree = plant(tmp_path / "oai", "2024.w21")
    (tree / "b").mkdir()
    (tree / "b" / "build.ninja").write_text(NINJA)
    status, out = configure(tree, tmp_path / "build")
    if status != 0 and "agent/CMakeLists.txt" in out:
        pytest.skip("needs libzmq and nanopb with their headers")
    assert status == 0, out
    flags = (tmp_path / "build/CMakeFiles/telnetsrv_prbandit.dir/flags.make").read_text()
    assert "-DMAX_NUM_CCs=1" in flags and "-I/somewhere/include" in flags and "two" in flags
    assert "WRONG" not in flags and "/wrong" not in flags


def test_an_unknown_version_is_refused_and_the_check_is_named(tmp_path: Path) -> None:
    tree = plant(tmp_path / "oai", "2024.w21")
    (tree / MAC).write_text("int nothing;\n")
    status, out = configure(tree, tmp_path / "build")
    assert status != 0 and "prbandit oai check" in " ".join(out.split())


def test_a_mac_of_several_cells_is_taken_for_none_of_the_versions(tmp_path: Path) -> None:
    status, out = configure(plant_cells(tmp_path / "oai"), tmp_path / "build")
    assert status != 0 and "is no version of OAI that is known here" in " ".join(out.split())


def test_a_folder_that_is_not_oai_is_refused(tmp_path: Path) -> None:
    status, out = configure(tmp_path, tmp_path / "build")
    assert status != 0 and "is no tree of openairinterface5g" in " ".join(out.split())
