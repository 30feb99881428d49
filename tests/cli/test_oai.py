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
from controller.cli.oai import TABLE as TABLE_FILE
from controller.cli.oai import has_field, load_table, source_of, struct_body

MAC = "openair2/LAYER2/NR_MAC_gNB/nr_mac_gNB.h"
TABLE = load_table()
ROWS = {row["name"]: row for row in TABLE["versions"]}
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


OF_A_CELL = ["common_channels", "vrb_map_UL_size", "beam_info", "frame_structure", "min_grant_prb"]


def plant_cells(root: Path) -> Path:
    """A tree as upstream's is since a MAC has several cells: what belongs to one is in nr_cell_sched_t."""
    header = plant(root, "2026.w32") / MAC
    text = header.read_text()
    for name in OF_A_CELL:
        text = text.replace(f"  int {name}; /*  */\n", "", 1)
    for direction in ("pdsch", "pusch"):
        text = text.replace(
            f"nr_mac, post_process_{direction}", f"nr_mac, nr_cell_sched_t *c, post_process_{direction}"
        )
    cell = "\n".join(f"  int {name};" for name in OF_A_CELL)
    header.write_text(f"typedef struct nr_cell_sched_s {{\n{cell}\n}} nr_cell_sched_t;\n{text}")
    return root


def check(path: Path, *more: str) -> Result:
    return CliRunner().invoke(cli, ["oai", "check", str(path), *more])


@pytest.mark.parametrize("version", list(ROWS))
def test_a_tree_with_every_name_is_supported_and_told_by_its_version(tmp_path: Path, version: str) -> None:
    result = check(plant(tmp_path, version), "--json")
    assert result.exit_code == 0, result.output
    out = json.loads(result.output)
    assert out["supported"] and out["version"] == version and out["missing"] == [] and out["lacking"] == 0
    assert out["tree_scheduler"] == out["scheduler"] == ROWS[version]["scheduler"]
    assert {other["version"] for other in out["others"]} == set(ROWS) - {version}
    assert all(0 < other["lacking"] <= other["needs"] for other in out["others"])
    assert out["dividers"] == []


def test_it_says_what_would_be_built_and_how_far_off_the_other_kinds_are(tmp_path: Path) -> None:
    root = plant(tmp_path, "2026.w32")
    out = json.loads(check(root, "--json").output)
    said = check(root).output
    assert "scheduler of this tree: pipeline" in said and "oai_patches/glue/src/pipeline.c" in said
    for other in out["others"]:
        assert (
            f"{other['version']} (pre-processor): {other['lacking']} of {other['needs']} names missing"
            in said
        )
    assert "src/pre_processor.c" in check(plant(tmp_path / "old", "2024.w21")).output


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


def test_a_structure_that_is_not_there_counts_as_all_of_its_names(tmp_path: Path) -> None:
    out = json.loads(check(plant(tmp_path, "2026.w32", without="nr_ul_candidate_t"), "--json").output)
    fields = next(s["fields"] for s in ROWS["2026.w32"]["structs"] if s["name"] == "nr_ul_candidate_t")
    assert len(out["missing"]) == 1 and out["lacking"] == len(fields) > 1
    assert f"{out['needs'] - len(fields)} of {out['needs']} names found" in check(tmp_path).output


def test_a_file_that_is_not_there_is_named_with_what_was_sought_in_it(tmp_path: Path) -> None:
    root = plant(tmp_path, "2026.w32")
    for name in ("common/utils/ds/seq_arr.h", "CMakeLists.txt", "openair2/LAYER2/NR_MAC_COMMON/nr_mac.h"):
        (root / name).unlink()
    said = check(root).output
    assert "seq_arr.h: no such file (function seq_arr_at())" in said
    assert "CMakeLists.txt: no such file (symbols exported" in said
    assert "nr_mac.h: no such file (structure NR_UE_DL_BWP_t)" in said


def test_a_tree_that_nobody_has_seen_is_told_by_its_stages_and_where_its_names_went(tmp_path: Path) -> None:
    root = plant_cells(tmp_path)
    out = json.loads(check(root, "--json").output)
    assert not out["known"] and not out["supported"]
    assert out["tree_scheduler"] == "pipeline" and out["version"] == "2026.w32"
    result = check(root)
    assert result.exit_code == 1 and "no version fits" in result.output
    for name in OF_A_CELL:
        assert f"field gNB_MAC_INST.{name} (there is one in nr_cell_sched_t)" in result.output
    assert "DL pre-processor" in result.output and "UL pre-processor" in result.output
    assert ROWS["2026.w32"]["tell"]["text"] in result.output


def test_an_unknown_tree_is_compared_with_a_version_of_its_own_kind(tmp_path: Path) -> None:
    header = plant(tmp_path, "2025.w37") / MAC
    strange = header.read_text().replace("(module_id_t mod_id, frame_t frame", "(int a, frame_t frame")
    header.write_text(f"{strange}typedef int (*nr_dl_rb_alloc_fn)(int a);\n")
    out = json.loads(check(tmp_path, "--json").output)
    lacking = {other["version"]: other["lacking"] for other in out["others"]}
    assert out["version"] == "2026.w32" and out["lacking"] > lacking["2025.w37"]


def test_a_structure_that_moved_to_another_header_is_found_there(tmp_path: Path) -> None:
    root = plant(tmp_path, "2026.w32", without="NR_bler_stats_t")
    other = root / "openair2/LAYER2/NR_MAC_COMMON/nr_mac.h"
    other.write_text(other.read_text() + "typedef struct NR_bler_stats { float bler; } NR_bler_stats_t;\n")
    assert "structure NR_bler_stats_t (now in openair2/LAYER2/NR_MAC_COMMON/nr_mac.h)" in check(root).output


def test_a_tree_without_any_scheduler_that_is_known(tmp_path: Path) -> None:
    (plant(tmp_path, "2024.w21") / MAC).write_text("/* pre_processor_dl, nr_dl_rb_alloc_fn */ int nothing;\n")
    result = check(tmp_path)
    assert result.exit_code == 1 and "scheduler of this tree: none that is known" in result.output
    assert json.loads(check(tmp_path, "--json").output)["tree_scheduler"] is None


DIVIDERS = [(divider, at) for divider in TABLE["dividers"] for at in divider["at"]]


@pytest.mark.parametrize(("divider", "at"), DIVIDERS, ids=[f"{at['text']}" for _, at in DIVIDERS])
def test_what_else_divides_prbs_is_a_note_and_no_error(
    tmp_path: Path, divider: dict[str, Any], at: dict[str, str]
) -> None:
    file = plant(tmp_path, "2026.w32") / at["file"]
    file.parent.mkdir(parents=True, exist_ok=True)
    before = file.read_text() if file.is_file() else ""
    file.write_text(f"{before}// {at['text']}\n")
    assert "note:" not in check(tmp_path).output
    file.write_text(f"{before}int {at['text']};\n")
    result = check(tmp_path, "--json")
    assert result.exit_code == 0
    expected = {"who": divider["who"], "file": at["file"], "module": divider["module"]}
    assert json.loads(result.output)["dividers"] == [expected]
    said = check(tmp_path).output
    assert f"{divider['who']}, in {at['file']}. {divider['module']}" in said


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
        assert row["scheduler"] in {kind["name"] for kind in TABLE["schedulers"]}
        assert (TABLE_FILE.parent / source_of(row["scheduler"])).is_file()


def test_of_two_rows_that_fit_the_first_of_the_table_counts_as_it_does_for_cmake(tmp_path: Path) -> None:
    header = plant(tmp_path, "2024.w21") / MAC
    header.write_text(header.read_text() + f"typedef void {ROWS['2026.w32']['tell']['text']} *p);\n")
    out = json.loads(check(tmp_path, "--json").output)
    assert out["version"] == next(iter(ROWS)) == "2026.w32" and out["known"]


TREES = [Path(p) for p in os.environ.get("PRBANDIT_OAI_TREES", "").split(os.pathsep) if p]


@pytest.mark.skipif(not TREES, reason="PRBANDIT_OAI_TREES names no OAI tree")
@pytest.mark.parametrize("tree", TREES, ids=str)
def test_real_trees(tree: Path) -> None:
    result = check(tree, "--json")
    out = json.loads(result.output)
    assert result.exit_code == 0 and out["tree_scheduler"] == out["scheduler"], result.output
