"""``metrics``: every metric that a page of ours may show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from controller.cli import emit, json_option
from wire.families import Family
from wire.roles import METRICS_READERS

_READERS = ", ".join(f"`{role}`" for role in sorted(METRICS_READERS))
_HEAD = f"""# Metrics

Prometheus pages: of the controller (`links.metrics.address`), of the edge agent and of the PTP agent
(`--metrics`); with keys they are HTTPS, for the roles {_READERS}. `deploy/prometheus/`
has a configuration, recording rules and alerts ([runbook](runbook.md)), `deploy/grafana/` a dashboard and its
provisioning.

A counter is there with 0 before its first count, for each configured cell where it has the label `cell`; what
is counted by cell and of none, or of one that is not known, has `cell="none"`. A gauge without a value has no
series: quotas of a cell without a gNB, the CQI of a UE that reported none. Series of a UE end with the UE; a
cell has at most 64.
"""
_FOOT = "\nThis page is written by `prbandit metrics --markdown`.\n"


def pages() -> dict[str, Sequence[Family]]:
    """Title -> the families of a page."""
    from agents.gpu import metrics as edge_agent
    from agents.ptp.service import PtpMetrics
    from controller.links import metrics as controller
    from wire.exposition import REFUSALS

    return {
        "Controller": controller.families(),
        "Edge agent": edge_agent.FAMILIES,
        "PTP agent": PtpMetrics("").registry.families,
        "Every page": (REFUSALS,),
    }


def markdown() -> str:
    """``docs/metrics.md``."""
    return _HEAD + "".join(_section(title, families) for title, families in pages().items()) + _FOOT


def _section(title: str, families: Sequence[Family]) -> str:
    head = ("metric", "type", "labels", "unit", "what it tells")
    rows = [head, ("---",) * len(head), *map(_row, sorted(families))]
    return f"\n## {title}\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(family: Family) -> tuple[str, ...]:
    labels = ", ".join(f"`{label}`" for label in family.labels)
    return f"`{family.name}`", family.kind, labels, family.unit, family.text.replace("|", "\\|")


def _lines(title: str, families: Sequence[Family]) -> Iterator[str]:
    yield f"{title}:"
    width = max(len(f.name) for f in families)
    for family in sorted(families):
        labels = f" {{{', '.join(family.labels)}}}" if family.labels else ""
        yield f"  {family.name:{width}}  {family.kind}{labels}: {family.text}"


@click.command("metrics")
@click.option("--markdown", "as_markdown", is_flag=True, help="Write docs/metrics.md to the standard output.")
@json_option
def metrics(as_json: bool, as_markdown: bool) -> None:
    """List the metrics of the controller, the edge agent and the PTP agent: name, type, labels, meaning."""
    if as_markdown:
        click.echo(markdown(), nl=False)
        return
    listed = pages()
    result = {title: [{**f._asdict(), "unit": f.unit} for f in found] for title, found in listed.items()}
    emit({"metrics": result}, as_json, "\n".join(x for page in listed.items() for x in _lines(*page)))
