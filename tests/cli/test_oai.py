"""``prbandit oai check`` on small trees of our own, and on those that ``PRBANDIT_OAI_TREES`` names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from controller.cli import cli
from controller.cli.oai import has_field, load_table, struct_body

MAC = "openair2/LAYER2/NR_MAC_gNB/nr_mac_gNB.h"
ROWS = {row["name"]: row for row in load_table()["versions"]}
LIST = {
    "2024.w21": "NR_UE_info_t *list[17];",
    "2025.w37": "NR_UE_info_t *connected_ue_list[17];",
    "2026.w32": "NR_UE_info_t *connected_ue_list[17];",
}
PRE_PROCESSOR = {
    "2024.w21": "typedef bool (*nr_pp_impl_ul)(module_id_t mod_id,\n                   frame_t frame);",
    "2025.w37": "typedef void (*nr_pp_impl_dl)(module_id_t mod_id, frame_t frame, slot_t slot);\n"
    "typedef void (*nr_pp_impl_ul)(gNB_MAC_INST *nr_mac, post_process_pusch_t *pp);",
    "2026.w32": "typedef void (*nr_pp_impl_dl)(gNB_MAC_INST *nr_mac, post_process_pdsch_t *pp_pdsch);\n"
    "typedef void (*nr_pp_impl_ul)(gNB_MAC_INST *nr_mac, post_process_pusch_t *pp);\n"
    "typedef int (*nr_dl_rb_alloc_fn)(const nr_dl_sched_params_t *p, nr_dl_candidate_t *c, int n);\n"
    "typedef int (*nr_ul_rb_alloc_fn)(const nr_ul_sched_params_t *p, nr_ul_candidate_t *c, int n);",
}


def plant(root: Path, version: str, without: str = "") -> Path:
    """A tree with what a row of the table asks for, except the name ``without``."""
    row: dict[str, Any] = ROWS[version]
    files: dict[str, list[str]] = defaultdict(list)
    for struct in row["structs"]:
        if struct["name"] == without:
            continue
        members = [f"  int {name}; /* {without} */" for name in struct["fields"] if name != without]
        if struct["name"] == "NR_UEs_t":
            members = [f"  {LIST[version]}"]
        body = "  struct { int deep[2]; } inner;\n" + "\n".join(members)
        files[struct["file"]].append(f"typedef struct {{\n{body}\n}} {struct['name']};")
    for function in row["functions"]:
        if function["name"] != without:
            files[function["file"]].append(f"int {function['name']}(int a);")
    types = PRE_PROCESSOR[version]
    files[MAC].append(types.replace("nr_pp_impl_ul", "another") if without == "nr_pp_impl_ul" else types)
    files["common/utils/load_module_shlib.h"].append("#define load_module_shlib(M, F, N, I) 0")
    files["CMakeLists.txt"].append('set(commonOpts "-pipe -fPIC -rdynamic")')
    for name, parts in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("\n".join(parts) + "\n")
    return root


def check(path: Path, *more: str) -> Result:
    return CliRunner().invoke(cli, ["oai", "check", str(path), *more])


@pytest.mark.parametrize("version", list(ROWS))
def test_a_tree_with_every_name_is_supported_and_told_by_its_version(tmp_path: Path, version: str) -> None:
    result = check(plant(tmp_path, version), "--json")
    assert result.exit_code == 0, result.output
    out = json.loads(result.output)
    assert out["supported"] and out["version"] == version and out["missing"] == []


NAMES = [
    (version, name)
    for version, row in ROWS.items()
    for name in [
        *(s["name"] for s in row["structs"]),
        *(f for s in row["structs"] for f in s["fields"]),
        *(f["name"] for f in row["functions"]),
        "nr_pp_impl_ul",
    ]
    if name not in ("list", "connected_ue_list", "NR_UEs_t")
]


@pytest.mark.parametrize(("version", "name"), sorted(set(NAMES)))
def test_what_a_tree_lacks_is_named_and_the_exit_status_is_1(tmp_path: Path, version: str, name: str) -> None:
    result = check(plant(tmp_path, version, without=name), "--json")
    assert result.exit_code == 1, result.output
    out = json.loads(result.output)
    assert not out["supported"] and out["version"] == version
    expected = "UL pre-processor" if name == "nr_pp_impl_ul" else name
    assert out["missing"] and all(expected in line for line in out["missing"])


def test_a_tree_of_another_version_is_compared_with_the_nearest(tmp_path: Path) -> None:
    root = plant(tmp_path, "2025.w37")
    header = root / MAC
    header.write_text(header.read_text().replace("connected_ue_list", "all_the_ues"))
    result = check(root)
    assert result.exit_code == 1
    assert "NOT supported" in result.output and "2025.w37" in result.output
    assert "NR_UEs_t.connected_ue_list" in result.output


def test_a_name_in_a_comment_does_not_count(tmp_path: Path) -> None:
    root = plant(tmp_path, "2024.w21", without="ulsch_max_frame_inactivity")
    assert "ulsch_max_frame_inactivity" in (root / MAC).read_text()
    assert check(root).exit_code == 1


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_commit_of_a_bare_repository(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(
            ["git", "-C", str(tmp_path / "tree"), *who, *arguments], check=True, capture_output=True
        )

    plant(tmp_path / "tree", "2024.w21")
    git("init", "-q", "-b", "main")
    git("add", "-A")
    git("commit", "-q", "-m", "x")
    subprocess.run(
        ["git", "clone", "-q", "--bare", str(tmp_path / "tree"), str(tmp_path / "bare")],
        check=True,
        capture_output=True,
    )
    assert check(tmp_path / "bare", "--rev", "main").exit_code == 0
    unknown = check(tmp_path / "bare", "--rev", "nowhere")
    assert unknown.exit_code == 1 and "--rev nowhere" in unknown.output
    bare = check(tmp_path / "bare")
    assert bare.exit_code == 1 and "--rev" in bare.output


def test_a_commit_without_git_is_a_named_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = check(tmp_path, "--rev", "main")
    assert result.exit_code == 1 and "git is not installed" in result.output


def test_another_folder_is_no_tree_of_oai(tmp_path: Path) -> None:
    result = check(tmp_path)
    assert result.exit_code == 1 and "nr_mac_gNB.h" in result.output


@pytest.mark.parametrize(
    ("text", "name", "field"),
    [
        ("typedef struct { int a; } t;", "t", "a"),
        ("typedef struct tag { struct { int x; } *a; } t;", "t", "a"),
        ("typedef struct tag t; struct tag { int *a, b; };", "t", "b"),
        ("struct t { int a[3][4]; };", "t", "a"),
        ("typedef struct { int c; } other; typedef struct { int a; } t;", "t", "a"),
    ],
)
def test_fields_are_found_however_the_structure_is_declared(text: str, name: str, field: str) -> None:
    body = struct_body(text, name)
    assert body is not None and has_field(body, field) and not has_field(body, "c")


def test_the_cmake_of_the_glue_picks_the_rows_by_texts_that_only_their_own_version_has() -> None:
    for version, row in ROWS.items():
        texts = {v: LIST[v] + PRE_PROCESSOR[v] for v in ROWS}
        assert [v for v, text in texts.items() if row["tell"]["text"] in text] == [version]


TREES = [Path(p) for p in os.environ.get("PRBANDIT_OAI_TREES", "").split(os.pathsep) if p]


@pytest.mark.skipif(not TREES, reason="PRBANDIT_OAI_TREES names no OAI tree")
@pytest.mark.parametrize("tree", TREES, ids=str)
def test_real_trees(tree: Path) -> None:
    result = check(tree)
    assert result.exit_code == 0, result.output
