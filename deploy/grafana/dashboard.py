"""Writes the Grafana dashboard: ``python deploy/grafana/dashboard.py`` after a change here.

Panels go by measures, levers, slices and UEs as the metrics name them, so that every service shows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "dashboards" / "prbandit.json"
SCHEMA_VERSION = 39
"""Of Grafana 11; later ones read it and bring it up to theirs."""
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
CELL = '{cell=~"$cell"}'
SLICE = '{cell=~"$cell",slice=~"$slice"}'
WIDTH, HEIGHT = 24, 8


def of(name: str, **matchers: str) -> str:
    """A selector of a metric by cell and slice."""
    more = "".join(f',{label}="{value}"' for label, value in matchers.items())
    return f'prbandit_{name}{{cell=~"$cell",slice=~"$slice"{more}}}'


def panel(
    kind: str,
    title: str,
    about: str,
    *targets: tuple[str, str],
    unit: str = "short",
    least: float | None = 0,
    most: float | None = None,
    options: dict[str, Any] | None = None,
    custom: dict[str, Any] | None = None,
    **defaults: Any,
) -> dict[str, Any]:
    """A panel of ``targets`` (PromQL, legend); where it lies is for :func:`laid_out`."""
    bounds = {name: value for name, value in (("min", least), ("max", most)) if value is not None}
    return {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": DATASOURCE,
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": DATASOURCE, "expr": expr, "legendFormat": legend}
            for i, (expr, legend) in enumerate(targets)
        ],
        "fieldConfig": {
            "defaults": {"unit": unit, **bounds, **defaults, **({"custom": custom} if custom else {})},
            "overrides": [],
        },
        "options": options or {},
    }


def lines(title: str, about: str, *targets: tuple[str, str], **more: Any) -> dict[str, Any]:
    """Time series."""
    custom = {
        "lineInterpolation": more.pop("interpolation", "linear"),
        "showPoints": "never",
        "fillOpacity": 0,
    }
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel("timeseries", title, about, *targets, options=options, custom=custom, **more)


def steps(title: str, about: str, *targets: tuple[str, str], **more: Any) -> dict[str, Any]:
    """Time series of what holds until it changes."""
    return lines(title, about, *targets, interpolation="stepAfter", **more)


def now(title: str, about: str, *targets: tuple[str, str], **more: Any) -> dict[str, Any]:
    """The present values."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "orientation": "auto",
        "textMode": more.pop("shows", "auto"),
        "colorMode": "background",
        "graphMode": "none",
        "justifyMode": "auto",
    }
    return panel("stat", title, about, *targets, options=options, **more)


def good(*texts: str) -> dict[str, Any]:
    """0 is red and the first text, 1 green and the second."""
    return {
        "mappings": [
            {"type": "value", "options": {str(i): {"text": t, "index": i} for i, t in enumerate(texts)}}
        ],
        "thresholds": above(("red", None), ("green", 1)),
    }


def above(*colours: tuple[str, float | None]) -> dict[str, Any]:
    """Colours from a value up."""
    return {"mode": "absolute", "steps": [{"color": colour, "value": value} for colour, value in colours]}


_LOW_IS_BAD = above(("red", None), ("orange", 0.9), ("green", 0.95))

ROWS: tuple[tuple[str, int, tuple[dict[str, Any], ...]], ...] = (
    (
        "Now",
        4,
        (
            now(
                "gNB",
                "Whether the gNB has a session.",
                (f"prbandit_gnb_connected{CELL}", "{{cell}}"),
                **good("silent", "connected"),
            ),
            now(
                "Mode",
                "What the controller does with its decisions.",
                (f"prbandit_mode{CELL} == 1", "{{cell}}: {{mode}}"),
                shows="name",
            ),
            now(
                "Edge agent",
                "Whether the edge agent of the cell's GPU answers.",
                (f"prbandit_edge_agent_connected{CELL}", "{{cell}}"),
                **good("gone", "connected"),
            ),
            now(
                "QoS delivery ratio",
                "Part of the control slots of the last 15 minutes that kept the slice's promise.",
                (f"prbandit:qos_delivery_ratio:rate15m{SLICE}", "{{cell}} {{slice}}"),
                unit="percentunit",
                most=1,
                thresholds=_LOW_IS_BAD,
            ),
            now(
                "Potential power saving",
                "Mean over the control slots so far, by the models of the MUCB1 paper; nothing measures it.",
                (f"prbandit_power_saving_ratio{CELL}", "{{cell}} {{part}}"),
                unit="percentunit",
                most=1,
                thresholds=above(("blue", None)),
            ),
            now(
                "Configuration",
                "Whether the configuration that was read last is in force.",
                ("prbandit_config_last_reload_successful", "{{instance}}"),
                **good("refused", "in force"),
            ),
        ),
    ),
    (
        "Resources",
        HEIGHT,
        (
            steps(
                "Uplink PRBs",
                "What each slice needs at the present MCS, asks for and may use, of the carrier.",
                (of("quota_prb", direction="ul"), "{{cell}} {{slice}} quota"),
                (of("asked_prb", direction="ul"), "{{cell}} {{slice}} asked"),
                (of("demand_prb", direction="ul"), "{{cell}} {{slice}} demand"),
                (f"prbandit_carrier_prb{CELL}", "{{cell}} carrier"),
            ),
            steps(
                "Downlink PRBs",
                "What each slice needs at the present MCS, asks for and may use, of the carrier.",
                (of("quota_prb", direction="dl"), "{{cell}} {{slice}} quota"),
                (of("asked_prb", direction="dl"), "{{cell}} {{slice}} asked"),
                (of("demand_prb", direction="dl"), "{{cell}} {{slice}} demand"),
                (f"prbandit_carrier_prb{CELL}", "{{cell}} carrier"),
            ),
            steps(
                "GPU clock",
                "What slices ask for, what was decided, and what the edge agent read back.",
                (f"prbandit_gpu_clock_hertz{CELL}", "{{cell}} read back"),
                (f"prbandit_gpu_wanted_hertz{CELL}", "{{cell}} decided"),
                (of("asked_gpu_hertz"), "{{cell}} {{slice}} asked"),
                (f"prbandit_gpu_max_hertz{CELL}", "{{cell}} highest"),
                unit="hertz",
            ),
            lines(
                "Use of the maxima",
                "Quotas of all slices of the carrier's PRBs, and the decided clock of the highest.",
                (f"prbandit:quota_ratio{CELL}", "{{cell}} {{direction}}"),
                (f"prbandit:gpu_clock_ratio{CELL}", "{{cell}} edge"),
                unit="percentunit",
                most=1,
            ),
            lines(
                "GPU power",
                "As the edge agent read it for the controller.",
                (f"prbandit_gpu_power_watts{CELL}", "{{cell}}"),
                unit="watt",
            ),
            lines(
                "GPU energy",
                "Measured: what each GPU took in an hour, at the present rate.",
                (
                    "rate(prbandit_agent_gpu_energy_joules_total[$__rate_interval]) * 3600",
                    "{{instance}} {{gpu}}",
                ),
                unit="joule",
            ),
        ),
    ),
    (
        "Service",
        HEIGHT,
        (
            lines(
                "Delays and their budgets",
                "Of the worst user in each control slot, for every measure in seconds.",
                (of("measure", unit="s"), "{{cell}} {{slice}} {{measure}}"),
                (of("measure_target", unit="s"), "{{cell}} {{slice}} {{measure}} budget"),
                unit="s",
            ),
            lines(
                "Other measures and their targets",
                "Of the worst user in each control slot, in the unit of the legend.",
                (
                    'prbandit_measure{cell=~"$cell",slice=~"$slice",unit!="s"}',
                    "{{cell}} {{slice}} {{measure}} [{{unit}}]",
                ),
                (
                    'prbandit_measure_target{cell=~"$cell",slice=~"$slice",unit!="s"}',
                    "{{cell}} {{slice}} {{measure}} [{{unit}}] target",
                ),
                least=None,
            ),
            lines(
                "Delivery ratio by measure",
                "Part of the control slots of 15 minutes in which every user's measure was met.",
                (f"prbandit:measure_delivery_ratio:rate15m{SLICE}", "{{cell}} {{slice}} {{measure}}"),
                (f"prbandit:qos_delivery_ratio:rate15m{SLICE}", "{{cell}} {{slice}} promise"),
                unit="percentunit",
                most=1,
            ),
            steps(
                "Flows",
                "Flows that the last control slot was judged by, and those that were told settings.",
                (of("active_flows"), "{{cell}} {{slice}} active"),
                (of("settings_flows"), "{{cell}} {{slice}} with settings"),
            ),
            lines(
                "Counts of the service",
                "What the slice's service counts in its control slots, a minute.",
                (
                    f"rate(prbandit_outcome_counts_total{SLICE}[$__rate_interval]) * 60",
                    "{{cell}} {{slice}} {{count}}",
                ),
            ),
            steps(
                "Rescue and quotas by hand",
                "The least that a slice gets although it asks for less, of all there is; PRBs set by hand.",
                (of("rescue_ratio"), "{{cell}} {{slice}} {{lever}}"),
                (
                    f"{of('manual_quota_prb')} / on (cell) group_left () prbandit_carrier_prb{CELL}",
                    "{{cell}} {{slice}} {{direction}} by hand",
                ),
                unit="percentunit",
                most=1,
            ),
        ),
    ),
    (
        "Learning",
        HEIGHT,
        (
            lines(
                "Choices",
                "Why levers stand where they stand: choices a minute by the policy's or allocator's word.",
                (
                    f"sum by (lever, why) (rate(prbandit_choices_total{SLICE}[$__rate_interval])) * 60",
                    "{{lever}}: {{why}}",
                ),
            ),
            lines(
                "Explore share",
                "Part of the choices of 15 minutes whose outcome was not known yet.",
                (f"prbandit:explore_ratio:rate15m{SLICE}", "{{cell}} {{slice}} {{lever}}"),
                unit="percentunit",
                most=1,
            ),
            lines(
                "Nothing learned",
                "Control slots a minute that nothing was learned from, by lever and reason.",
                (
                    "sum by (cell, slice, lever, reason)"
                    f" (rate(prbandit_unattributed_control_slots_total{SLICE}[$__rate_interval])) * 60",
                    "{{cell}} {{slice}} {{lever}}: {{reason}}",
                ),
            ),
        ),
    ),
    (
        "UEs",
        HEIGHT,
        (
            lines(
                "Throughput",
                "Of the logical channels of each UE.",
                (of("ue_throughput_bits_per_second"), "{{ue}} {{direction}}"),
                unit="bps",
            ),
            lines(
                "PRBs used",
                "Mean over the NR slots of the direction, HARQ retransmissions included.",
                (of("ue_prb"), "{{ue}} {{direction}}"),
            ),
            lines(
                "Queues", "Bytes that wait.", (of("ue_queued_bytes"), "{{ue}} {{direction}}"), unit="bytes"
            ),
            lines("MCS", "Index of the last grant.", (of("ue_mcs"), "{{ue}} {{direction}}")),
            lines(
                "CQI and SNR",
                "CQI of the downlink; SNR of the PUSCH in dB.",
                (of("ue_cqi"), "{{ue}} CQI"),
                (of("ue_snr_db"), "{{ue}} SNR"),
                least=None,
            ),
            lines(
                "BLER",
                "Of first transmissions.",
                (of("ue_bler_ratio"), "{{ue}} {{direction}}"),
                unit="percentunit",
                most=1,
            ),
        ),
    ),
    (
        "Health",
        HEIGHT,
        (
            lines(
                "Clocks of hosts",
                "Offset as each host told it last.",
                (f"prbandit_clock_offset_seconds{CELL}", "{{cell}} {{host}}"),
                unit="s",
                least=None,
            ),
            lines(
                "Links",
                "Age of the last MAC report; time until the quotas' lease ends.",
                (f"prbandit_report_age_seconds{CELL}", "{{cell}} report"),
                (f"prbandit_lease_remaining_seconds{CELL}", "{{cell}} lease"),
                unit="s",
            ),
            lines(
                "Time of a control slot's decision",
                "Median and 99th percentile.",
                *(
                    (
                        f"histogram_quantile({q}, sum by (cell, le)"
                        f" (rate(prbandit_step_duration_seconds_bucket{CELL}[$__rate_interval])))",
                        f"{{{{cell}}}} {name}",
                    )
                    for q, name in (("0.5", "median"), ("0.99", "99 %"))
                ),
                unit="s",
            ),
            lines(
                "Trouble of the gNB link",
                "What was counted in an hour.",
                *(
                    (f"increase(prbandit_ran_{name}_total{CELL}[1h])", f"{{{{cell}}}} {text}")
                    for name, text in (
                        ("quota_not_honoured", "quota not kept"),
                        ("leases_lapsed", "lease lapsed"),
                        ("cells_lost", "cell lost"),
                        ("reports_lost", "report lost"),
                        ("resends", "quota re-sent"),
                    )
                ),
            ),
            lines(
                "Run record",
                "Control slots recorded, and failures to write, a minute.",
                (f"rate(prbandit_store_slots_total{CELL}[$__rate_interval]) * 60", "{{cell}} recorded"),
                ("rate(prbandit_store_errors_total[$__rate_interval]) * 60", "{{instance}} failed"),
            ),
            lines(
                "Refused",
                "Requests of metrics pages, messages and connections that were refused, in an hour.",
                (
                    "sum by (instance) (increase(prbandit_metrics_page_refused_total[1h]))",
                    "{{instance}} page",
                ),
                ("sum by (instance) (increase(prbandit_ran_key_refused_total[1h]))", "{{instance}} gNB key"),
                ("sum by (instance) (increase(prbandit_qos_denied_total[1h]))", "{{instance}} QoS"),
                ("sum by (instance) (increase(prbandit_operator_denied_total[1h]))", "{{instance}} operator"),
            ),
        ),
    ),
)


def laid_out() -> list[dict[str, Any]]:
    """The panels of every row, three side by side, or as many as there are where the row is low."""
    out: list[dict[str, Any]] = []
    y = 0
    for title, height, panels in ROWS:
        place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
        out.append({"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": place})
        wide = len(panels) if height < HEIGHT else 3
        w = WIDTH // wide
        for i, one in enumerate(panels):
            place = {"x": i % wide * w, "y": y + 1 + i // wide * height, "w": w, "h": height}
            out.append({**one, "gridPos": place})
        y += 1 - (-len(panels) // wide) * height
    return [{"id": i, **one} for i, one in enumerate(out, 1)]


def variable(name: str, query: str) -> dict[str, Any]:
    """A choice among a label's values."""
    return {
        "name": name,
        "type": "query",
        "label": name,
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def dashboard() -> dict[str, Any]:
    return {
        "uid": "prbandit",
        "title": "PRBandit",
        "description": "Cells under control: resources, services, learning, UEs and health.",
        "tags": ["prbandit"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "type": "datasource",
                    "label": "Prometheus",
                    "query": "prometheus",
                    "current": {"text": "Prometheus", "value": "prometheus"},
                },
                variable("cell", "label_values(prbandit_gnb_connected, cell)"),
                variable("slice", 'label_values(prbandit_busy_control_slots_total{cell=~"$cell"}, slice)'),
            ]
        },
        "panels": laid_out(),
    }


def text() -> str:
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
