"""``openrtist table-ii`` that does not come to its end."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.openrtist import needs

needs.extra()

from controller.cli import children, cli  # noqa: E402
from controller.cli.openrtist import table_ii as command  # noqa: E402
from openrtist import table_ii  # noqa: E402
from openrtist.client import ClientError  # noqa: E402
from openrtist.table_ii import PAPER, Case, Measured  # noqa: E402


def measured_until(monkeypatch: pytest.MonkeyPatch, rows: int, error: BaseException | None) -> list[Case]:
    """Rows come without a server; the one after ``rows`` raises. The value is what was asked for."""
    asked: list[Case] = []

    def measure(case: Case, *_: object, **__: object) -> Measured:
        if len(asked) == rows and error is not None:
            raise error
        asked.append(case)
        return Measured(case, 5.0, 30.0, 1.5, 0.5, 1.5, 0.5, 10.0, 12.0, 150, 149, 1)

    monkeypatch.setattr(table_ii, "measure", measure)
    monkeypatch.setattr(command, "_server_process", lambda *_: nullcontext(lambda: "cpu"))
    monkeypatch.setattr(children, "interrupt_on_signals", lambda: None)
    return asked


def run(*options: str) -> Result:
    return CliRunner().invoke(cli, ["openrtist", "table-ii", "--style", "x", "--video", "y", *options])


@pytest.mark.parametrize("error", [ClientError("server at 127.0.0.1:1: gone"), KeyboardInterrupt()])
@pytest.mark.parametrize("as_json", [True, False])
def test_rows_that_were_measured_before_it_was_broken_off_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, as_json: bool
) -> None:
    measured_until(monkeypatch, 7, error)
    result = run("--out", str(tmp_path / "table.html"), *(["--json"] if as_json else []))
    assert result.exit_code == 1
    if as_json:
        told = json.loads(result.stdout)
        assert [row["name"] for row in told["rows"]] == [case.name for case in PAPER[:7]]
        assert told["missing"] == [case.name for case in PAPER[7:]]
    else:
        assert "720 x 576" in result.stdout and "160 x 80" not in result.stdout
    assert "broken off, without 720x480@30, 160x80@30" in result.output
    assert "720 x 576" in (tmp_path / "table.html").read_text()


def test_broken_off_in_the_first_row_there_is_nothing_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    measured_until(monkeypatch, 0, ClientError("gone"))
    result = run()
    assert isinstance(result.exception, ClientError) and not result.stdout


@pytest.mark.parametrize("where", ["nowhere/table.html", "."])
def test_a_page_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    asked = measured_until(monkeypatch, 99, None)
    result = run("--out", str(tmp_path / where))
    assert result.exit_code == 2 and "no file can be written there" in result.output
    assert not asked


def test_a_page_that_can_no_longer_be_written_does_not_cost_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured_until(monkeypatch, 99, None)
    folder = tmp_path / "pages"
    folder.mkdir()
    monkeypatch.setattr(table_ii, "html", lambda _: folder.rmdir() or "page")
    result = run("--out", str(folder / "table.html"), "--json")
    assert isinstance(result.exception, FileNotFoundError)
    assert len(json.loads(result.stdout)["rows"]) == len(PAPER)


def test_its_server_is_one_that_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    def start(*_: object, **__: object) -> None:
        called.append("start")
        raise OSError("no server today")

    monkeypatch.setattr(children, "interrupt_on_signals", lambda: called.append("signals"))
    monkeypatch.setattr(children, "start", start)
    assert str(run().exception) == "no server today" and called == ["signals", "start"]
