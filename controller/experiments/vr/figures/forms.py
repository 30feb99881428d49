"""The full model beside the authors' constraints, and the printed objective beside the weighted one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from controller.allocators.vr.check import CONSTRAINTS, evaluate
from controller.allocators.vr.instance import Instance
from controller.allocators.vr.solve import Request, find
from controller.experiments.figures import COLOURS, Plot, Table, canvas, cell
from controller.experiments.vr.figures.base import Figure, Study


def compute(study: Study, advance: Callable[[str], None]) -> dict[str, Any]:
    rows = []
    for users in study.counts():
        row: dict[str, Any] = {"users": users}
        for constraints in CONSTRAINTS:
            solved = study.solved(users, "exact", constraints)
            row[constraints] = {"objective": solved["objective"], "status": solved["status"]}
        request = Request.of(
            {
                **study.data,
                "first": users,
                "constraints": "full",
                "objective": "printed",
                "time_limit_s": study.time_limit_s,
            }
        )
        answer = find(request)
        weighted = evaluate(Instance.of(study.data).first(users), answer.solution, "full", "weighted")
        row["printed"] = {
            "objective": answer.evaluation.objective,
            "status": answer.status,
            "weighted": weighted.objective,
        }
        rows.append(row)
        advance(f"{users} users")
    return {"rows": rows}


def shown(result: Mapping[str, Any]) -> list[str | Table]:
    rows = [
        [
            str(row["users"]),
            cell(row["published-code"]["objective"]),
            row["published-code"]["status"],
            cell(row["full"]["objective"]),
            row["full"]["status"],
            cell(row["printed"]["objective"]),
            row["printed"]["status"],
            cell(row["printed"]["weighted"]),
            f"{100.0 * (row['printed']['weighted'] / row['full']['objective'] - 1.0):+.1f} %",
        ]
        for row in result["rows"]
    ]
    head = [
        *("users", "authors' constraints", "status", "full model", "status", "printed objective", "status"),
        *("its weighted QoE", "of the optimum"),
    ]
    return [
        "The full model adds propagation, processing, queueing and rendering to the latency, and CPU, memory"
        " and network to the capacities, where the instance has them; the published one has rendering alone.",
        "Equation (1) as printed has attention inside the logarithm, where it is a constant: its optimum"
        " spends as much on what is hardly looked at. Its weighted QoE is what that costs in the form that"
        " the authors' code maximises.",
        Table("Optima", head, rows),
    ]


def plots(result: Mapping[str, Any]) -> list[Plot]:
    figure, axes = canvas(1, width=5.5)
    axis = axes[0][0]
    users = [row["users"] for row in result["rows"]]
    series = {
        "authors' constraints": [row["published-code"]["objective"] for row in result["rows"]],
        "full model": [row["full"]["objective"] for row in result["rows"]],
        "full model, optimum of the printed form": [row["printed"]["weighted"] for row in result["rows"]],
    }
    for k, (name, values) in enumerate(series.items()):
        axis.plot(users, values, marker="os^"[k], markersize=3.5, color=COLOURS[k], label=name)
    axis.set_xlabel("users")
    axis.set_ylabel("weighted QoE")
    axis.legend(fontsize=7)
    return [Plot("Forms of the model", figure)]


FIGURE = Figure("Full model and printed objective", lambda users: users, compute, shown, plots)
