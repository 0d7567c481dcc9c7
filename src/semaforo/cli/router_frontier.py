"""``semaforo router frontier`` of a fleet: of a running server, or of the history that one has kept."""

from __future__ import annotations

from pathlib import Path

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from semaforo.cli.output import show_json, write_file
from semaforo.cli.remote import body_of, server
from semaforo.entities.units import show_dollars, show_duration
from semaforo.errors import NotFound, ProtocolError, nearest
from semaforo.observe.explain import short
from semaforo.observe.frontier import LATELY, Answered, place_of, standing
from semaforo.policy.frontier import Frontier, frontier
from semaforo.repository.history import read_known, read_lately


def run_of_server(url: str, key: str, task: str, png: Path | None, as_json: bool) -> None:
    """Show where a running fleet stands.

    Raises:
        SemaforoError: The server is not there, does not allow it, or has no such task.
    """
    with server(url, key) as client:
        said = body_of(client.get("/semaforo/v1/frontier", params={"task": task} if task else {}))
    try:
        found = msgspec.convert(said["tasks"], list[Frontier])
    except (KeyError, TypeError, msgspec.ValidationError):
        raise ProtocolError(f"{url} tells of no frontier: is it a Semaforo server of this version?") from None
    _show(found, png, as_json)


def run_of_history(path: Path, task: str, png: Path | None, as_json: bool) -> None:
    """Show where the fleet stood that keeps this history; its goals stand in the fleet file and are not known.

    Raises:
        SemaforoError: The file is no history, or has no such task.
    """
    known, lately = read_known(path), read_lately(path, LATELY)
    tasks = {answer.variant: answer.task for answer in lately}
    names = list(dict.fromkeys(tasks.values()))
    if task and task not in names:
        raise NotFound(f"{path} has no answers of '{task}' lately.{nearest(task, names)}")
    found = []
    for name in [task] if task else names:
        mine = [a for a in lately if a.task == name]
        variants = sorted({a.variant for a in mine})
        places = [
            place_of(v, known.get(v), share=sum(a.variant == v for a in mine) / len(mine)) for v in variants
        ]
        believed = {p.variant: p.quality for p in places}
        answers = [Answered(name, a.variant, believed[a.variant], a.cost, a.total_s, a.score) for a in mine]
        found.append(frontier(name, places, standing(answers)))
    _show(found, png, as_json)


def _show(found: list[Frontier], png: Path | None, as_json: bool) -> None:
    if png is not None:
        from semaforo.jobs.learn.fleet_picture import fleet_picture

        write_file(png, fleet_picture(found))
    if as_json:
        show_json(found)
        return
    out = Console(highlight=False)
    for one in found:
        _show_one(out, one)


def _show_one(out: Console, one: Frontier) -> None:
    shown = Table(box=box.SIMPLE_HEAD, title=one.task, padding=(0, 1, 0, 0))
    for column in ("variant", "quality", "95 %", "$/1,000", "latency", "judged", "lately", ""):
        left = column in ("variant", "")
        shown.add_column(
            column, justify="left" if left else "right", no_wrap=column != "variant", overflow="fold"
        )
    corners = {corner.variant for corner in one.mixing}
    for place in sorted(one.variants, key=lambda p: (p.cost is None, p.cost or 0.0, p.variant)):
        known = place.low is not None and place.high is not None
        mark = "corner" if place.variant in corners else "frontier" if place.on_frontier else ""
        shown.add_row(
            short(place.variant), _number(place.quality), f"{place.low:.2f}…{place.high:.2f}" if known else "",
            "" if place.cost is None else _cents(1e3 * place.cost),
            "" if place.latency_s is None else show_duration(place.latency_s),
            f"{place.feedback:,}", f"{place.share:.0%}", mark,
        )  # fmt: skip
    out.print(shown)
    now, aim = one.now, one.aim
    if now is not None:
        judged = f"; {now.judged:,} of them judged: {_number(now.score)}" if now.judged else ""
        mixed = f"; mixing alone gives {now.mixed:.3f} for that" if now.mixed is not None else ""
        out.print(
            f"now: quality {_number(now.quality)} at {show_dollars(1e3 * now.cost)} per 1,000 in "
            f"{show_duration(now.latency_s)}, of the last {now.answers:,} answers{judged}{mixed}"
        )
    if aim is not None:
        out.print(f"goal: {aim.goal}{_limit(aim.least_quality)}: {_reached(aim.shares)}", markup=False)
        if aim.quality is not None and aim.cost is not None:
            out.print(f"      that is quality {aim.quality:.3f} at {show_dollars(1e3 * aim.cost)} per 1,000")


def _cents(dollars: float) -> str:
    return f"{dollars:,.2f}" if dollars >= 1.0 else f"{dollars:.2g}"


def _limit(quality: float | None) -> str:
    return "" if quality is None else f" ({quality:.3f})"


def _reached(shares: dict[str, float]) -> str:
    if not shares:
        return "nothing that is known reaches it"
    if len(shares) == 1:
        return short(next(iter(shares)))
    return " and ".join(f"{share:.0%} {short(name)}" for name, share in shares.items())


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3f}"
