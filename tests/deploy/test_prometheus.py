"""The rules and the configuration for Prometheus, by its own tool and against what we export."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.cli.metrics import pages
from controller.core.decision import EXPLORING
from tests.e2e.harness import missing

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
RUNBOOK = ROOT / "docs" / "runbook.md"
FAMILIES = {family.name: family for found in pages().values() for family in found}
OWN_LABELS = {"job", "instance", "le"}
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"] for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDS = {rule["record"] for rule in RULES if "record" in rule}


def promtool(*arguments: str) -> None:
    if shutil.which("promtool") is None:
        missing("promtool (Debian's package prometheus) is not installed", "PRBANDIT_REQUIRE_PROMETHEUS")
    done = subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def unknown(expression: str) -> Iterator[str]:
    """What an expression asks for and no page of ours has: metrics, recorded series, labels of selectors."""
    for name, selector in re.findall(r"\b(prbandit[_:][a-z_:0-9]+)(?:\{([^}]*)\})?", expression):
        known = re.sub(r"_(bucket|count|sum)$", "", name)
        family = FAMILIES.get(name) or FAMILIES.get(known)
        if ":" in name:
            if name not in RECORDS:
                yield name
        elif family is None:
            yield name
        else:
            labels = set(re.findall(r"(\w+)\s*[=!]~?", selector))
            yield from (f"{name}{{{label}}}" for label in labels - {*family.labels} - OWN_LABELS)


def test_rules_are_as_promtool_wants_them() -> None:
    promtool("check", "rules", "rules.yml")


def test_alerts_fire_where_they_are_to_and_not_where_they_are_not() -> None:
    promtool("test", "rules", "rules.test.yml")


def test_every_alert_is_tested_to_fire() -> None:
    tested = (FOLDER / "rules.test.yml").read_text()
    for rule in ALERTS:
        assert f'alertname="{rule["alert"]}",alertstate="firing",' in tested, rule["alert"]
    for record in RECORDS:
        assert f"labels: '{record}{{" in tested, record


def test_rules_ask_for_what_is_exported() -> None:
    assert [name for rule in RULES for name in unknown(rule["expr"])] == []


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_how_bad_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    page, anchor = rule["annotations"]["runbook_url"].split("#")
    assert ROOT / page == RUNBOOK
    headings = re.findall(r"^## (.*)$", RUNBOOK.read_text(), re.MULTILINE)
    assert anchor in [heading.lower().replace(" ", "-") for heading in headings]


def test_the_runbook_has_no_section_that_no_alert_leads_to() -> None:
    assert len(re.findall(r"^## ", RUNBOOK.read_text(), re.MULTILINE)) == len(ALERTS)


def test_the_explore_share_goes_by_the_words_that_mean_exploring() -> None:
    (rule,) = (r for r in RULES if r.get("record", "").startswith("prbandit:explore_ratio"))
    (words,) = re.findall(r'why=~"([^"]*)"', rule["expr"])
    assert set(words.split("|")) == EXPLORING


def test_the_runbook_names_what_is_exported() -> None:
    assert list(unknown(RUNBOOK.read_text())) == []
