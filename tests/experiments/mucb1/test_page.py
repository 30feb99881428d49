"""The top of Table V's page: the verdict, and the schemes beside the paper."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from controller.experiments.mucb1 import page, table_v
from controller.experiments.results import Results

pytest.importorskip("scipy", reason="intervals need the extra 'research'")
pytest.importorskip("matplotlib", reason="the page needs the extra 'report'")
pytest.importorskip("jinja2", reason="the page needs the extra 'report'")


def test_verdict_and_one_chart_of_the_schemes_come_first(tmp_path: Path) -> None:
    todo = table_v.jobs((1,), duration_s=20, with_oracle=False, scenarios=(1,))
    with Results(tmp_path / "x.jsonl") as results:
        list(table_v.collect(todo, results, 1))
        table = table_v.fill(table_v.Table("described", (1,), (1,), None, 20.0), todo, results)
    result = table_v.result(table)
    text = page.build([table], [result])
    assert text.index("<h2>Verdict</h2>") < text.index("<svg") < text.index("<table>")
    assert text.count("<svg", 0, text.index("<table>")) == 2  # for wide and for narrow screens
    hold = sum(c["holds"] for c in result["claims"])
    assert f"<b>{hold} of {len(result['claims'])}</b> claims of the paper hold here" in text
    (overview,) = re.findall(r"The four schemes beside the paper</figcaption>(.*?)</figure>", text, re.DOTALL)
    for words in (*(table_v.NAMES[s] for s in table_v.SCHEMES), "paper, another experiment", "DL PRB"):
        assert overview.count(f">{words}<") == 2, words
