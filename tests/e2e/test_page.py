"""The page in a real browser, before real processes; and before what only an attacker would send."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.core.clocks import KnownClock
from controller.core.observation import DirectionColumns, MacReport
from controller.links import page
from controller.links.health import Heard
from controller.links.operator import Broadcaster, CellStatus
from controller.links.page import PageServer
from tests.e2e.browser import Browser, chromium
from tests.e2e.harness import Testbed, until
from tests.links.test_operator import Target, record

CONFIG = """
control: {control_slot_s: 0.5, guard_ms: 100.0}
cells:
  - id: cell-1
    slices: [{id: ar, policy: mucb1, ues: [ue-1]}]
emulation: {duration_s: 3600.0, flows: 2, schedule: always}
"""
NOT_REACHED = (
    "ERR_CONNECTION_REFUSED",
    "ERR_CONNECTION_RESET",
    "ERR_INCOMPLETE_CHUNKED_ENCODING",
    "ERR_EMPTY_RESPONSE",
)
"""What a browser's console says of a controller that is not there."""
LEAST_CONTRAST = 4.5
"""Of text, WCAG 2.2, 1.4.3 (AA)."""
DECISIONS = "Decisions of cell cell-1"
POLICY = "section[aria-label='Slice ar'] .policy"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def bed(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    bed = Testbed(tmp_path_factory.mktemp("page"), CONFIG)
    try:
        bed.start_all()
        bed.wait_for_slot(4)
        yield bed
    finally:
        bed.close()


@pytest.fixture
def shown(bed: Testbed, browser: Browser) -> Browser:
    """The page of the running controller, with a decision on it."""
    browser.size(1280)
    browser.scheme("light")
    browser.complaints()
    browser.open(bed.page_url)
    until(
        lambda: browser.rows(DECISIONS) and browser.rows("Resources of slice ar"),
        "decisions and the state on the page",
    )
    return browser


def status(bed: Testbed) -> dict[str, Any]:
    command = [sys.executable, "-m", "controller.cli", "status", "--operator", bed.operator_address, "--json"]
    return dict(json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60).stdout))


def shot(browser: Browser, name: str, width: int, height: int) -> None:
    """A picture for who asks for them by PRBANDIT_SCREENSHOTS, a folder."""
    if folder := os.environ.get("PRBANDIT_SCREENSHOTS"):
        browser.size(width, height)
        browser.driver.save_screenshot(str(Path(folder) / name))


# ---- before a running controller -------------------------------------------------------------------------


def test_the_page_shows_what_status_says(bed: Testbed, shown: Browser) -> None:
    said = status(bed)
    (cell,) = said["cells"]
    last = cell["last"]
    row = until(
        lambda: next((r for r in shown.rows(DECISIONS) if r[0] == str(last["control_slot"])), None),
        "the decision that status told of",
    )
    closed = last["slices"]["ar"]["closed"]
    kept = {1: "kept", 0: "missed", None: "-"}[closed["met"]]
    ul, dl = last["quotas"]["ar"]
    assert row[2:8] == ["active", "ar", kept, str(ul), str(dl), str(last["gpu_mhz"])]
    measures = []
    for name, m in closed["measures"].items():
        if m["users"]:
            value, target = max(m["users"].values())
            measures.append(f"{name.replace('_', ' ')} {value:.3g} of {target:.3g} {m['unit']}")
    assert row[8] == (", ".join(measures) or "-")
    assert all(choice["why"] in row[9] for choice in last["slices"]["ar"]["choices"])
    facts = shown.facts("#facts")
    assert facts["Version"] == said["version"] and facts["Run folder"] == said["run_dir"]
    assert facts["Control slot"] == "0.5 s, lease 3 s"
    assert facts["Configuration hash"] == said["config_hash"]
    until(lambda: same_verdict(bed, shown), "the verdict and the QoS of status")
    of_cell = shown.facts("section[aria-label='Cell cell-1'] > .facts")
    assert of_cell["gNB"] == f"connected, {cell['prb']} PRB" and of_cell["Active flows"] == "2"
    assert of_cell["Edge agent"] == "connected" and "left" in of_cell["Lease of the quotas"]
    assert [row[:2] for row in shown.rows("UEs of cell cell-1")] == [["ue-1", "ar"]]
    hosts = shown.rows("Hosts and clocks of cell cell-1")
    assert {row[0] for row in hosts} == {host["host"] for host in cell["hosts"]}
    assert {row[0] for row in shown.rows("Measures of slice ar")} == {"round trip", "ul", "edge", "dl"}
    assert shown.run(f'return document.querySelector("{POLICY} select").value') == "mucb1"
    drawn = "return [...document.querySelectorAll('.chart path.line')].map((path) => path.getTotalLength())"
    assert max(shown.run(drawn)) > 20
    assert shown.complaints() == []


def same_verdict(bed: Testbed, shown: Browser) -> bool:
    said = status(bed)
    (cell,) = said["cells"]
    (qos,) = cell["qos"]
    hour = shown.facts("section[aria-label='Slice ar'] .facts")["QoS of the last hour"]
    judged = int(hour.rpartition(" of ")[2].rstrip(")"))
    near = abs(judged - qos["judged"]) <= 2  # a slot or two may end between the two looks
    return near and shown.text("#verdict").startswith(said["health"]["status"])


def test_what_was_decided_before_the_page_was_opened_is_there(bed: Testbed, shown: Browser) -> None:
    slots = [int(row[0]) for row in shown.rows(DECISIONS)]
    shown.driver.refresh()
    # The page shows them as they come, the first alone for a moment.
    until(lambda: len(shown.rows(DECISIONS)) > 1, "decisions after a reload")
    again = [int(row[0]) for row in shown.rows(DECISIONS)]
    assert set(again) & set(slots) and again == sorted(again, reverse=True)


def test_the_mode_is_switched_and_asked_for_where_control_is_given_up(bed: Testbed, shown: Browser) -> None:
    def press(mode: str) -> None:
        shown.click(f"button[data-mode={mode}]")

    def pressed() -> list[str]:
        buttons = "[...document.querySelectorAll('[aria-pressed=true]')]"
        return list(shown.run(f"return {buttons}.map((button) => button.dataset.mode)"))

    assert pressed() == ["active"]
    press("frozen")
    until(lambda: bed.cell()["mode"] == "frozen", "mode frozen in the daemon")
    until(lambda: pressed() == ["frozen"], "mode frozen on the page")
    assert until(lambda: shown.text("#notice"), "the answer of the command") == "Mode frozen"
    until(lambda: "mode frozen: nothing is learned" in shown.text(".cell > .reasons"), "the reason")
    press("released")
    shown.click("#confirm-no")
    assert bed.cell()["mode"] == "frozen"
    press("released")
    assert "Set cell cell-1 to released?" in shown.text("#confirm")
    shown.click("#confirm-yes")
    until(lambda: bed.cell()["mode"] == "released", "mode released in the daemon")
    until(lambda: not bed.gnb()["quotas"], "no quota at the gNB")
    press("active")
    until(lambda: bed.cell()["mode"] == "active", "mode active in the daemon")
    until(lambda: pressed() == ["active"], "mode active on the page")
    assert shown.complaints() == []


def test_the_policy_is_switched_and_shows_where_another_has_switched_it(bed: Testbed, shown: Browser) -> None:
    shown.choose(f"{POLICY} select", "ucb1")
    shown.click(f"{POLICY} button")
    until(
        lambda: {c["method"] for c in bed.cell()["last"]["slices"]["ar"]["choices"]} == {"ucb1"},
        "policy ucb1 in the daemon",
    )
    shown.choose(f"{POLICY} label + label select", "dl")
    shown.choose(f"{POLICY} select", "static")
    with bed.operator() as client:
        client.switch_policy("cell-1", "ar", "aimd")
    until(
        lambda: all(row[3].count("aimd: ") for row in shown.rows("Resources of slice ar")),
        "what another has switched",
    )
    assert shown.run(f'return document.querySelector("{POLICY} select").value') == "static"
    shown.click(f"{POLICY} button")
    until(
        lambda: (
            [c["method"] for c in bed.cell()["last"]["slices"]["ar"]["choices"]] == ["aimd", "aimd", "static"]
        ),
        "policy static at one hop",
    )
    until(lambda: "policy static" in shown.text("#notice").lower(), "the answer of the command")
    with bed.operator() as client:
        client.switch_policy("cell-1", "ar", "mucb1")
    until(
        lambda: shown.run(f'return document.querySelector("{POLICY} select").value') == "mucb1",
        "the policy on the page",
    )
    until(
        lambda: all(row[3].count("mucb1: ") for row in shown.rows("Resources of slice ar")),
        "what the policy chose",
    )
    assert shown.complaints() == []


def test_the_keyboard_reaches_every_switch_and_shows_where_it_is(bed: Testbed, shown: Browser) -> None:
    reached = [shown.press_tab() for _ in range(9)]
    names = [at["text"] for at in reached]
    assert names[0] == "Skip to the cells" and names[1:5] == ["active", "shadow", "frozen", "released"]
    assert "SELECT" in [at["tag"] for at in reached] and "SUMMARY" in [at["tag"] for at in reached]
    assert all(at["outline"] for at in reached), reached


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_readable(bed: Testbed, shown: Browser, width: int, scheme: str) -> None:
    shown.scheme(scheme)
    shown.size(width)
    shown.run("for (const of of document.querySelectorAll('details')) of.open = true")
    until(lambda: shown.overflow() <= 0, "a page as wide as its window")
    ratio, text = shown.contrasts()[0]
    assert ratio >= LEAST_CONTRAST, f"{text!r}: {ratio:.2f}"
    back = shown.run("return getComputedStyle(document.documentElement).backgroundColor")
    assert (sum(map(int, back[4:-1].split(", "))) < 3 * 128) == (scheme == "dark")
    assert shown.complaints() == []
    shown.run("for (const of of document.querySelectorAll('details')) of.open = false")
    if not (width == 400 and scheme == "dark"):
        shot(shown, f"page-{width}-{scheme}.png", width, 1180 if width == 1280 else 1400)


def test_a_controller_that_dies_is_told_of_and_taken_up_again(bed: Testbed, shown: Browser) -> None:
    before = bed.cell()["control_slots"]
    bed.kill("controller")
    until(lambda: shown.text("#verdict").startswith("controller not reachable since "), "the verdict")
    until(lambda: "goes on by itself" in shown.text("#reasons"), "what is to be done")
    assert shown.run("return document.querySelectorAll('.cell button:enabled').length") == 0
    assert shown.contrasts()[0][0] >= LEAST_CONTRAST
    assert shown.rows(DECISIONS), "what was known stays"
    bed.start("controller")
    until(lambda: not shown.text("#verdict").startswith("controller not"), "the controller on the page")
    until(lambda: any(int(row[0]) > before + 2 for row in shown.rows(DECISIONS)), "new decisions")
    assert shown.text("#reasons") == ""
    assert shown.run("return document.querySelector('[data-mode]').disabled") is False
    assert shown.complaints(NOT_REACHED) == []


def test_a_gnb_that_goes_is_told_of(bed: Testbed, shown: Browser) -> None:
    bed.kill("gnb-mock")
    until(lambda: "its gNB is not connected" in shown.text(".cell > .reasons"), "the reason")
    until(lambda: shown.rows("Resources of slice ar")[0][1] == "its gNB is gone", "no quota")
    assert shown.text("#verdict").startswith("degraded")
    bed.start("gnb-mock")
    until(lambda: "connected, 106 PRB" in shown.text(".cell > .facts"), "the gNB on the page")


# ---- before what else may come ---------------------------------------------------------------------------

EVIL = '<img src=x onerror="window.owned=1"><script>window.owned=1</script>'


@pytest.fixture
def fake() -> Iterator[tuple[str, Target, Broadcaster]]:
    """A page before a controller of which the test says all."""
    target, broadcaster = Target(), Broadcaster(keep=page.KEPT_DECISIONS)
    target.cells = [CellStatus("cell-1", edge_configured=True), CellStatus("cell-2")]
    server = PageServer("127.0.0.1:0", None, target, broadcaster)
    yield f"http://127.0.0.1:{server.port}/", target, broadcaster
    server.close()


def test_names_from_outside_are_text_and_nothing_else(
    browser: Browser, fake: tuple[str, Target, Broadcaster]
) -> None:
    url, target, broadcaster = fake
    last = json.loads(json.dumps(record(7)).replace('"f"', json.dumps(EVIL)))
    of = last["slices"].pop("ar")
    of["closed"]["measures"][EVIL] = {
        "unit": EVIL, "better": "lower", "met": 0, "samples": 1, "users": {EVIL: [2.0, 1.0]},
    }  # fmt: skip
    of["closed"]["unattributed"] = {"ul": EVIL}
    of["choices"][0] |= {"method": EVIL, "why": EVIL}
    of["settings"] = {EVIL: {EVIL: [1.0]}}
    of["failed"] = {EVIL: EVIL}
    last["slices"][EVIL] = of
    last["ended"] = EVIL
    columns = DirectionColumns((20,), (1,), (1,), (12345,), (0.125,))
    target.cells[0] = CellStatus(
        "cell-1",
        connected=True,
        prb=106,
        mode="active",
        last=last,
        active_flows=1,
        not_controlled=EVIL,
        clocks=[KnownClock(EVIL, EVIL, 1.0, 0.5, EVIL)],
        hosts=[Heard(EVIL, 9.0)],
        report=MacReport(*(5, (EVIL,), (EVIL,), columns, columns, (15,), (20.5,)), snssai=(EVIL,)),
    )
    broadcaster.publish(last)
    browser.complaints()
    browser.open(url)
    until(lambda: browser.rows(DECISIONS), "the decision")
    browser.run("for (const of of document.querySelectorAll('details')) of.open = true")
    assert browser.run("return document.querySelectorAll('img, script:not([src])').length") == 0
    assert browser.run("return window.owned ?? 0") == 0
    assert until(lambda: browser.rows("UEs of cell cell-1"), "the UE")[0][:2] == [EVIL, EVIL]
    assert browser.rows("Hosts and clocks of cell cell-1")[0][0] == EVIL
    assert EVIL in browser.rows(DECISIONS)[0][9]
    browser.size(400)
    until(lambda: browser.overflow() <= 0, "long names within the window")
    assert browser.complaints() == []


def test_where_there_is_nothing_yet_the_page_says_so(
    browser: Browser, fake: tuple[str, Target, Broadcaster]
) -> None:
    browser.complaints()
    browser.open(fake[0])
    until(lambda: len(browser.run("return [...document.querySelectorAll('.cell')]")) == 2, "both cells")
    text = browser.text(".cell")
    for part in (
        "No gNB yet",
        "No decision yet",
        "No host has a QoS stream",
        "No UE has been reported",
        "not connected",
    ):
        assert part in text
    assert browser.text("#verdict") == "degraded: 3 reasons"
    assert browser.contrasts()[0][0] >= LEAST_CONTRAST and browser.complaints() == []


def test_who_may_only_look_has_no_switch(
    browser: Browser, fake: tuple[str, Target, Broadcaster], monkeypatch: pytest.MonkeyPatch
) -> None:
    may = page._may
    monkeypatch.setattr(
        page, "_may", lambda who, name: name in ("GetState", "WatchDecisions") and may(who, name)
    )
    browser.open(fake[0])
    until(lambda: "may look, not command" in browser.text("#reasons"), "why there is no switch")
    assert browser.run("return document.querySelectorAll('.cell button:enabled').length") == 0
