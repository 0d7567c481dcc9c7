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
    """One request of the tour: what is asked, and under which contract.

    Attributes:
        refused: The status of the refusal that is expected, or 0 where an answer is.
    """

    def __init__(self, says: str, target: str, rows: int = 1, refused: int = 0, **contract: str) -> None:
        self.says = says
        self.target = target
        self.rows = rows
        self.refused = refused
        self.headers = {f"semaforo-{name.replace('_', '-')}": value for name, value in contract.items()}


def visits(quality: Mapping[str, float]) -> list[Visit]:
    """Return the tour; what is asked for depends on what the models turned out to be worth."""
    better = f"{(quality['digits-net/model'] + quality['digits-large/model']) / 2:.4f}"
    return [
        Visit("no contract", "digits"),
        Visit("deadline 20 ms", "digits", deadline_ms="20"),
        Visit(f"quality ≥ {better}", "digits", min_quality=better),
        Visit("high, 64 rows", "digits", rows=64, priority="high"),
        Visit("a model by its name", "digits-net"),
        Visit("an alias", "best-digits"),
        Visit("no contract", "tumour"),
        Visit("private data", "tumour", privacy="site"),
        Visit("deadline 0.001 ms", "digits", refused=503, deadline_ms="0.001"),
        Visit("quality ≥ 0.9999", "digits", refused=422, min_quality="0.9999"),
        Visit("cost ≤ $1e-12", "tumour", refused=422, max_cost="1e-12"),
    ]


def tour(url: str, folder: Path, quality: Mapping[str, float], console: Console) -> int:
    """Make all visits, print the table, and return how many went as they should."""
    data = {**np.load(folder / "digits-test.npz"), **np.load(folder / "tumour-test.npz")}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_lines=True)
    table.add_column("asked", no_wrap=True)
    table.add_column("decided, and why (✗ = ruled out)")
    good = 0
    with httpx.Client(base_url=url, timeout=30) as client:
        settle(client, data)
        for visit in visits(quality):
            row, expected = ask(client, visit, data)
            table.add_row(*row)
            good += expected
    console.print(table)
    console.print(
        f"{good} of {table.row_count} as expected: answered rightly, or refused because nothing could.\n"
    )
    return good


def settle(client: httpx.Client, data: Mapping[str, np.ndarray]) -> None:
    """Ask every model a few times, so that what is predicted rests on requests as they come."""
    for model in (m["name"] for m in client.get("/semaforo/v1/fleet").json()["models"]):
        for rows in (1, 64) * 8:
            client.post(f"/v2/models/{model}/infer", json=body(model.partition("-")[0], data, rows))


def body(target: str, data: Mapping[str, np.ndarray], rows: int) -> dict[str, Any]:
    """Return a request's body."""
    name = "cells" if target == "tumour" else "image"
    cells = data[name][:rows]
    tensor = {"name": name, "shape": list(cells.shape), "datatype": "FP32", "data": cells.ravel().tolist()}
    return {"inputs": [tensor]}


def ask(client: httpx.Client, visit: Visit, data: Mapping[str, np.ndarray]) -> tuple[list[Text], bool]:
    """Make one visit; return its row of the table, and whether it went as it should."""
    truth = data["malignant" if visit.target == "tumour" else "label"]
    asked = body(visit.target, data, visit.rows)
    response = client.post(f"/v2/models/{visit.target}/infer", json=asked, headers=visit.headers)
    story = client.get(f"/semaforo/v1/decisions/{response.headers['semaforo-request-id']}").json()
    title = Text(visit.target, "bold").append(f"\n{visit.says}", "not bold")
    considered = story["decided"][0].get("considered", [])
    finish = story["finish"]
    said = Text(style="not bold default")
    reasons(said, considered, finish.get("variant", ""))
    if response.status_code != 200:
        why = response.json()["error"].partition(":")[0]
        said.append(f"  {response.status_code}: {why}", "yellow")
        return [title, said], response.status_code == visit.refused
    outputs = {output["name"]: output["data"] for output in response.json()["outputs"]}
    answer = np.array(outputs.get("label", outputs.get("malignant")))
    winner = next(c for c in considered if c["variant"] == finish["variant"])
    number = finish["replica"].rpartition("-")[2]
    took = f"{milliseconds(finish['total_s'])} in all, {winner['predicted_s'] * 1e3:.2f} predicted"
    said.append(f"  replica {number}, {took}, ${finish.get('cost', 0.0):.1e}", "green")
    expected = not visit.refused and np.mean(answer == truth[: visit.rows]) >= 0.9
    return [title, said], bool(expected)


def reasons(text: Text, considered: list[dict[str, Any]], winner: str) -> None:
    """Add a line for each variant that was considered: its score, or what ruled it out."""
    width = max((len(short(c["variant"])) for c in considered), default=0)
    for c in sorted(considered, key=lambda c: (bool(c.get("ruled_out")), -c.get("score", 0.0))):
        name = short(c["variant"]).ljust(width)
        if c.get("ruled_out"):
            detail = c.get("detail", "").replace(" predicted", "")
            text.append(f"✗ {name}  {c['ruled_out']}: {detail}\n", "dim")
        else:
            picked = c["variant"] == winner
            figures = f"score {c.get('score', 0.0):.2f}  quality {c.get('quality', 0.0):.3f}"
            text.append(f"{'▸' if picked else ' '} {name}  {figures}\n", "bold green" if picked else "")


def short(variant: str) -> str:
    """Return ``model/variant`` for ``model/version/variant``, and the model alone where it has but one."""
    model, _, name = variant.split("/")
    return model if name == "default" else f"{model}/{name}"


def milliseconds(seconds: float) -> str:
    """Write a time in ms."""
    return f"{seconds * 1e3:.2f} ms"
