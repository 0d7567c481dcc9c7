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
from rich.text import Text


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
    """Make all visits, print the table, and return how many answers were as they should be."""
    data = np.load(folder / "held-out.npz")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_lines=True)
    table.add_column("asked", ratio=2)
    table.add_column("decided (score, quality; ✗ = ruled out)", ratio=3)
    table.add_column("figures", justify="right", no_wrap=True)
    good = 0
    with httpx.Client(base_url=url, timeout=30) as client:
        for visit in visits(quality):
            row, expected = ask(client, visit, data)
            table.add_row(*row)
            good += expected
    console.print(table)
    console.print(
        f"{good} of {table.row_count} as expected: answered rightly, or refused because nothing could.\n"
    )
    return good


def ask(client: httpx.Client, visit: Visit, data: Mapping[str, np.ndarray]) -> tuple[list[Text], bool]:
    """Make one visit; return its row of the table, and whether the answer is as it should be."""
    name, truth = ("cells", data["kind"] == 0) if visit.target == "tumour" else ("image", data["digit"])
    rows = data[name][: visit.rows]
    body = {
        "inputs": [
            {"name": name, "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}
        ]
    }
    response = client.post(f"/v2/models/{visit.target}/infer", json=body, headers=visit.headers)
    story = client.get(f"/semaforo/v1/decisions/{response.headers['semaforo-request-id']}").json()
    asked = Text(visit.target, "bold").append(f"\n{visit.says}", "not bold")
    considered = story["decided"][0].get("considered", [])
    if response.status_code != 200:
        outcome = (story.get("finish") or {}).get("outcome", "refused")
        said = Text(f"{outcome}: {response.json()['error'].partition(': ')[0]}", "yellow")
        reasons(said, considered, "")
        return [asked, said, Text(f"HTTP {response.status_code}")], response.status_code in (422, 503, 504)
    outputs = {output["name"]: output["data"] for output in response.json()["outputs"]}
    answer = np.array(outputs.get("label", outputs.get("malignant")))
    finish = story["finish"]
    winner = next((c for c in considered if c["variant"] == finish["variant"]), {})
    decided = Text(short(finish["variant"]), "bold green").append(
        f" on {finish['replica']}", "not bold default"
    )
    reasons(decided, considered, finish["variant"])
    figures = [
        f"{milliseconds(winner.get('predicted_s', 0.0))} predicted",
        f"{milliseconds(finish['total_s'])} actual",
        f"${finish.get('cost', 0.0):.1e} cost",
    ]
    expected = np.mean(answer == truth[: visit.rows]) >= 0.9
    return [asked, decided, Text("\n".join(figures))], bool(expected)


def reasons(text: Text, considered: list[dict[str, Any]], winner: str) -> None:
    """Add a line for each variant that was considered: its score, or what ruled it out."""
    for c in sorted(considered, key=lambda c: (bool(c.get("ruled_out")), -c.get("score", 0.0))):
        if c.get("ruled_out"):
            text.append(
                f"\n✗ {short(c['variant'])}: {c['ruled_out']} {c.get('detail', '')}", "not bold dim default"
            )
        else:
            mark = "▸" if c["variant"] == winner else " "
            figures = f"{c.get('score', 0.0):.2f}, quality {c.get('quality', 0.0):.3f}"
            text.append(f"\n{mark} {short(c['variant'])}: {figures}", "not bold default")


def short(variant: str) -> str:
    """Return ``model/variant`` for ``model/version/variant``, and the model alone where it has but one."""
    model, _, name = variant.split("/")
    return model if name == "default" else f"{model}/{name}"


def milliseconds(seconds: float) -> str:
    """Write a time in ms."""
    return f"{seconds * 1e3:.2f} ms"
