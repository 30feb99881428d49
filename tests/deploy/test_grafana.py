"""The dashboard for Grafana: as it is generated, by Grafana's own model, of metrics that there are."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.test_prometheus import unknown

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana"
BOARD: dict[str, Any] = json.loads((FOLDER / "dashboards" / "prbandit.json").read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]


def test_the_dashboard_is_what_its_generator_writes() -> None:
    generated = runpy.run_path(str(FOLDER / "dashboard.py"))["text"]()
    assert json.loads(generated) == BOARD, "stale: python deploy/grafana/dashboard.py"


def lost(given: Any, kept: Any, at: str = "$") -> Iterator[str]:
    """Where ``kept`` has not what ``given`` has."""
    if isinstance(given, dict):
        for key, value in given.items():
            if not isinstance(kept, dict) or key not in kept:
                yield f"{at}.{key}"
            else:
                yield from lost(value, kept[key], f"{at}.{key}")
    elif isinstance(given, list):
        if not isinstance(kept, list) or len(given) != len(kept):
            yield at
        else:
            for i, (one, other) in enumerate(zip(given, kept, strict=True)):
                yield from lost(one, other, f"{at}[{i}]")
    elif given != kept:
        yield at


def test_grafanas_own_model_knows_every_key() -> None:
    """What its schema does not know is lost where a dashboard goes through its types and back."""
    sdk = pytest.importorskip(
        "grafana_foundation_sdk.models.dashboard", reason="needs grafana-foundation-sdk"
    )
    from grafana_foundation_sdk.cog import encoder, plugins

    plugins.register_default_plugins()
    board = sdk.Dashboard.from_json(BOARD)
    back = json.loads(encoder.JSONEncoder(sort_keys=True).encode(board))
    assert list(lost(BOARD, back)) == []
    for panel in board.panels:
        if isinstance(panel, sdk.Panel):  # of a type or a source that it does not know these are plain
            assert not isinstance(panel.options, dict), panel.title
            assert not any(isinstance(target, dict) for target in panel.targets), panel.title


def test_every_panel_has_its_place_and_a_number_of_its_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24 and not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)


def test_panels_ask_for_what_is_exported() -> None:
    assert [name for expression in EXPRESSIONS for name in unknown(expression)] == []
    queries = [v["query"]["query"] for v in BOARD["templating"]["list"] if v["type"] == "query"]
    assert [name for query in queries for name in unknown(query)] == []


def test_nothing_is_asked_of_one_service_cell_or_slice() -> None:
    for expression in EXPRESSIONS:
        assert 'slice="' not in expression and 'cell="' not in expression and 'measure="' not in expression


def test_grafana_finds_the_dashboard_and_its_prometheus() -> None:
    provisioning = FOLDER / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "prbandit.yml").read_text())["providers"]
    (variable,) = (v for v in BOARD["templating"]["list"] if v["type"] == "datasource")
    assert (source["type"], source["uid"]) == (variable["query"], variable["current"]["value"])
    assert provider["type"] == "file" and Path(provider["options"]["path"]).name == "dashboards"
