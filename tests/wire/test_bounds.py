"""Each bound of a QoS message has one name, and settings are checked alike at both ends."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from wire.definitions import bounds

ROOT = Path(__file__).parents[2]
NAMES = {name for name in vars(bounds) if name.startswith("MAX_")}


def test_every_bound_that_the_contract_names_is_a_constant() -> None:
    named = set(re.findall(r"\bMAX_[A-Z_]+\b", (ROOT / "wire" / "qos.proto").read_text()))
    assert named == NAMES


def test_no_other_file_gives_a_value_to_one_of_them() -> None:
    assigned = {}
    for folder in ("agents", "openrtist", "controller/links"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                targets = node.targets if isinstance(node, ast.Assign) else []
                for target in targets:
                    if isinstance(target, ast.Name) and target.id in NAMES:
                        assigned[target.id] = path
    assert assigned == {}


def test_good_settings_pass() -> None:
    bounds.check_settings({})
    bounds.check_settings({"f": {}})
    names = {f"{i:031d}": [0.0] * bounds.MAX_SETTING_VALUES for i in range(bounds.MAX_SETTINGS)}
    bounds.check_settings({"f" * bounds.MAX_FLOW_NAME: names, "g": {"fps": (30,)}})


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"": {}}, "flow is empty"),
        ({"f" * 129: {}}, "longer than 128 bytes"),
        ({"f": {str(i): (1.0,) for i in range(33)}}, "flow 'f': 33 settings, more than 32"),
        ({"f": {"": (1.0,)}}, "flow 'f': name is empty"),
        ({"f": {"ü" * 16: (1.0,)}}, "flow 'f': name .* longer than 31 bytes"),
        ({"f": {"fps": ()}}, "flow 'f': fps: 0 values"),
        ({"f": {"fps": (1.0,) * 65}}, "flow 'f': fps: 65 values"),
        ({"f": {"fps": (1.0, float("nan"))}}, "flow 'f': fps: value 1 is nan"),
        ({"f": {"fps": (float("-inf"),)}}, "flow 'f': fps: value 0 is -inf"),
        ({"f": {"fps": ("30",)}}, "flow 'f': fps: value 0 is '30'"),
        ({"f": {"fps": (10**400,)}}, "flow 'f': fps: value 0"),
    ],
)
def test_settings_that_cannot_be_are_named(settings: dict, place: str) -> None:
    with pytest.raises(ValueError, match=place):
        bounds.check_settings(settings)
