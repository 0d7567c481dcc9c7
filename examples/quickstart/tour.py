"""Sends real requests with unlike contracts, and shows in a table what was decided and why."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table


class Visit:
    """One request of the tour: what is asked, and under which contract."""

    def __init__(self, says: str, target: str, rows: int = 1, **contract: str) -> None:
        self.says = says
        self.target = target
        self.rows = rows
        self.headers = {f"semaforo-{name.replace('_', '-')}": value for name, value in contract.items()}


def visits(quality: Mapping[str, float]) -> list[Visit]:
    """Return the tour; what is asked for depends on what the models turned out to be worth."""
    better = f"{(quality['digits-net/model'] + quality['digits-large/model']) / 2:.4f}"
    return [
        Visit("no contract", "digits"),
        Visit("deadline 20 ms", "digits", deadline_ms="20"),
        Visit(f"quality ≥ {better}", "digits", min_quality=better),
        Visit("cost ≤ $2e-10", "digits", max_cost="2e-10"),
        Visit("high priority, 64 rows", "digits", rows=64, priority="high"),
        Visit("the model digits-net", "digits-net"),
        Visit("an alias", "best-digits"),
        Visit("no contract", "tumour"),
        Visit("private data", "tumour", privacy="site"),
        Visit("deadline 0.05 ms", "digits", deadline_ms="0.05"),
        Visit("quality ≥ 0.9999", "digits", min_quality="0.9999"),
    ]


def tour(url: str, folder: Path, quality: Mapping[str, float], console: Console) -> int:
    """Make all visits, print the table, and return how many answers were right or rightly refused."""
    data = np.load(folder / "held-out.npz")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("asked", "under the contract", "answered by", "on replica"):
        table.add_column(title, overflow="fold")
    for title in ("predicted", "actual", "cost"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("why", overflow="fold", ratio=1)
    right = 0
    with httpx.Client(base_url=url, timeout=30) as client:
        for visit in visits(quality):
            row, good = ask(client, visit, data)
            table.add_row(*row)
            right += good
    console.print(table)
    return right


def ask(client: httpx.Client, visit: Visit, data: Mapping[str, np.ndarray]) -> tuple[list[str], bool]:
    """Make one visit; return its row of the table, and whether the answer is what was to be expected."""
    name, truth = ("cells", data["kind"] == 0) if visit.target == "tumour" else ("image", data["digit"])
    rows = data[name][: visit.rows]
    body = {
        "inputs": [
            {"name": name, "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}
        ]
    }
    response = client.post(f"/v2/models/{visit.target}/infer", json=body, headers=visit.headers)
    request = response.headers.get("semaforo-request-id", "")
    story = client.get(f"/semaforo/v1/decisions/{request}").json()
    asked = [f"{visit.target}" + (f" × {visit.rows}" if visit.rows > 1 else ""), visit.says]
    if response.status_code != 200:
        return [
            *asked,
            "[yellow]nobody",
            "–",
            "–",
            "–",
            "–",
            response.json()["error"],
        ], response.status_code < 500 or (response.status_code in (503, 504))
    outputs = {output["name"]: output["data"] for output in response.json()["outputs"]}
    answer = outputs.get("label", outputs.get("malignant"))
    good = float(np.mean(np.array(answer) == truth[: visit.rows])) >= 0.9
    finish = story["finish"]
    decided = story["decided"][0]
    considered = decided.get("considered", [])
    picked = next((c for c in considered if c["variant"] == finish["variant"]), {})
    return [
        *asked,
        f"[green]{short(finish['variant'])}",
        finish["replica"],
        milliseconds(picked.get("predicted_s", 0.0)),
        milliseconds(finish["total_s"]),
        f"${finish.get('cost', 0.0):.1e}",
        why(decided, considered, finish["variant"]),
    ], good


def why(decided: Mapping[str, Any], considered: list[dict[str, Any]], winner: str) -> str:
    """Say in one line why the winner won, and who was ruled out."""
    scored = sorted((c for c in considered if not c.get("ruled_out")), key=lambda c: -c.get("score", 0.0))
    scores = ", ".join(
        f"{short(c['variant'])} {c.get('score', 0.0):.2f}" for c in scored if c["variant"] != winner
    )
    best = next((c.get("score", 0.0) for c in scored if c["variant"] == winner), 0.0)
    parts = [f"{decided.get('reason', '')} {best:.2f}" + (f" before {scores}" if scores else "")]
    parts += [
        f"{short(c['variant'])}: {c['ruled_out']} {c.get('detail', '')}"
        for c in considered
        if c.get("ruled_out")
    ]
    return "; ".join(parts)


def short(variant: str) -> str:
    """Return ``model/variant`` for ``model/version/variant``, and the model alone where it has but one."""
    model, _, name = variant.split("/")
    return model if name == "default" else f"{model}/{name}"


def milliseconds(seconds: float) -> str:
    """Write a time in ms."""
    return f"{seconds * 1e3:.2f} ms"
