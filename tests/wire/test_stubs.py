"""The committed stubs are what the contracts generate."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROTOS = sorted((ROOT / "wire").glob("*.proto"))


def test_stubs_are_fresh(tmp_path: Path) -> None:
    protoc = pytest.importorskip(
        "grpc_tools.protoc", reason="grpcio-tools is not installed: pip install 'prbandit[dev]'"
    )
    out = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    assert PROTOS
    assert protoc.main(["protoc", f"-I{ROOT}", *out, *map(str, PROTOS)]) == 0
    generated = {p.name: p.read_bytes() for p in (tmp_path / "wire").iterdir()}
    committed = {p.name: p.read_bytes() for p in (ROOT / "wire").glob("*_pb2*.py*")}
    stale = sorted(n for n in generated.keys() | committed if generated.get(n) != committed.get(n))
    assert not stale, f"stale or surplus in wire/: {', '.join(stale)}; run `make stubs`"


def test_messages_hold_no_maps_and_every_ran_bound_names_a_field() -> None:
    """nanopb holds the RAN link in static memory: bounded repeated fields, bounded strings, no maps."""
    from wire import ran_pb2

    bounds = dict(re.findall(r"^prbandit\.ran\.(\S+)\s+(?:max_size|max_count):(\d+)$", OPTIONS, re.M))
    fields = {
        f"{message.name}.{field.name}": field
        for message in ran_pb2.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
    }
    assert bounds.keys() <= fields.keys()
    need = {n for n, f in fields.items() if f.is_repeated or f.type == f.TYPE_STRING}
    assert need == bounds.keys()
    assert not any(
        f.message_type is not None and f.message_type.GetOptions().map_entry for f in fields.values()
    )


OPTIONS = (ROOT / "wire" / "ran.options").read_text()


def test_codec_holds_the_bounds_of_ran_options() -> None:
    from controller.links import codec

    bounds = {n: int(b) for n, b in re.findall(r"^prbandit\.ran\.(\S+)\s+\w+:(\d+)$", OPTIONS, re.M)}
    # A string's size counts the terminating zero.
    names = {b - 1 for n, b in bounds.items() if n.endswith((".ue_id", ".slice", ".agent_version"))}
    assert names == {codec.MAX_NAME}
    assert bounds["Hello.cell_id"] - 1 == codec.MAX_CELL_ID
    assert bounds["UeState.dl_channels"] == codec.MAX_CHANNELS
    assert bounds["MacReport.ues"] == bounds["SetQuota.bindings"] == codec.MAX_UES
    assert bounds["SetQuota.quotas"] == bounds["Applied.in_force"] == codec.MAX_SLICES
    assert bounds["Applied.use"] == codec.MAX_USES
