"""``openrtist client`` without ``--ue``: behind the cell's only UE, or behind none that it is told."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from controller.cli.openrtist.client import _only_ue
from controller.links.qos import QosIngest

UES = {"one": (("rnti-4601", "ar"),), "two": (("rnti-4601", "ar"), ("rnti-4602", ""))}


@pytest.fixture
def address() -> Iterator[str]:
    server = (ingest := QosIngest(lambda cell, item: None, expected_cells=UES, ues=UES.get)).server()
    assert ingest
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0)


def test_the_only_ue_of_a_cell_is_taken(address: str) -> None:
    assert _only_ue(address, None, "one") == "rnti-4601"


def test_of_several_none_is_taken_and_all_are_named(address: str) -> None:
    with pytest.raises(
        click.UsageError, match=r"cell two has 2 UEs: rnti-4601 \(ar\), rnti-4602 \(no slice\); name one"
    ):
        _only_ue(address, None, "two")


def test_a_cell_that_the_controller_does_not_have_is_refused(address: str) -> None:
    with pytest.raises(click.ClickException, match=r"cell 'three' is not known .*; name the UE with --ue"):
        _only_ue(address, None, "three")
