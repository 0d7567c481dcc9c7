"""What ``semaforo router list | candidate | promote | rollback`` do: they speak to a server."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from rich import box
from rich.console import Console
from rich.table import Table

from semaforo.cli.output import show_json
from semaforo.cli.remote import body_of, server
from semaforo.entities.units import show_duration

_AT = "/semaforo/v1/routers"


def run_list(url: str, key: str, as_json: bool) -> None:
    """Show the routers of all tasks.

    Raises:
        SemaforoError: The server is not there, or does not allow it.
    """
    with server(url, key) as client:
        found = body_of(client.get(_AT))
    if as_json:
        show_json(found)
        return
    out = Console(highlight=False)
    if not found["routers"]:
        out.print("no task has a trained router: name one under `router` in the fleet file")
    for about in found["routers"]:
        _show(out, about)


def run_candidate(task: str, change: dict[str, Any], url: str, key: str, as_json: bool) -> None:
    """Try a router beside the one in service.

    Raises:
        SemaforoError: The server is not there, or refuses.
    """
    _post(task, "candidate", {k: v for k, v in change.items() if v not in (None, "")}, url, key, as_json)


def run_promote(task: str, why: str, url: str, key: str, as_json: bool) -> None:
    """Put the candidate in service.

    Raises:
        SemaforoError: The server is not there, or there is no candidate.
    """
    _post(task, "promote", {"why": why}, url, key, as_json)


def run_roll_back(task: str, why: str, url: str, key: str, as_json: bool) -> None:
    """Drop the candidate, or go back to the router before.

    Raises:
        SemaforoError: The server is not there, or there is neither.
    """
    _post(task, "rollback", {"why": why}, url, key, as_json)


def _post(task: str, what: str, body: dict[str, Any], url: str, key: str, as_json: bool) -> None:
    with server(url, key) as client:
        found = body_of(client.post(f"{_AT}/{quote(task, safe='')}/{what}", json=body))
    if as_json:
        show_json(found)
    else:
        _show(Console(highlight=False), found)


def _show(out: Console, about: dict[str, Any]) -> None:
    shown = Table(box=box.SIMPLE_HEAD, title=about["task"])
    for column in ("router", "", "sha256", "rows", "made", "score out of fold"):
        shown.add_column(column, justify="right" if column == "rows" else "left", overflow="fold")
    for one, role in _routers(about):
        said = one["error"] or _out_of_fold(one["figures"])
        rows = f"{one['rows']:,}" if one["rows"] else ""
        shown.add_row(one["name"], role, one["sha256"][:8], rows, one["made"][:10], said)
    out.print(shown)
    for one, _ in _routers(about):
        if one["warning"]:
            out.print(f"warning: {one['name']} {one['warning']}", markup=False)
    tryout = about["tryout"]
    if tryout is not None:
        _show_tryout(out, about, tryout)
    for ended in about["ended"]:
        out.print(f"{ended['at']}  {ended['name']} {ended['what']}: {ended['why']}", markup=False)


def _routers(about: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    roles = {"in_service": "in service", "candidate": "candidate", "before": "before"}
    at = {about[role]["name"]: word for role, word in reversed(roles.items()) if about[role] is not None}
    found = [(one, at.get(one["name"], "")) for one in about["versions"]]
    listed = {one["name"] for one, _ in found}
    more = [(about[role], word) for role, word in roles.items() if about[role] is not None]
    return [*found, *((one, word) for one, word in more if one["name"] not in listed)]


def _out_of_fold(figures: dict[str, float]) -> str:
    """Say what a router was worth when it was trained; `semaforo router explain` has all figures."""
    if "score" not in figures:
        return ""
    single = f" (best single {figures['best_single']:.3f})" if "best_single" in figures else ""
    return f"{figures['score']:.3f}{single}"


def _show_tryout(out: Console, about: dict[str, Any], tryout: dict[str, Any]) -> None:
    low, high = tryout["difference"]
    watched = f"; they differ on {tryout['apart']:,} of {tryout['seen']:,} requests" if tryout["seen"] else ""
    out.print(
        f"{about['candidate']['name']} decides {about['share']:.0%} of the requests, promoted "
        f"{'by itself' if about['promote'] == 'auto' else 'by hand'}{watched}",
        markup=False,
    )
    shown = Table(box=box.SIMPLE_HEAD)
    for column in ("", "answers", "judged", "score", "$ per 1,000", "latency"):
        shown.add_column(column, justify="right" if column else "left")
    for role in ("service", "candidate"):
        side = tryout[role]
        shown.add_row(
            role, f"{side['answers']:,}", f"{side['judged']:,}",
            "" if side["score"] is None else f"{side['score']:.3f}",
            "" if side["cost"] is None else f"{1e3 * side['cost']:.4g}",
            "" if side["latency_s"] is None else show_duration(side["latency_s"]),
        )  # fmt: skip
    out.print(shown)
    also = [f"{word} {tryout[word]}" for word in ("cost", "latency") if tryout[word] in ("less", "more")]
    out.print(
        f"verdict: {tryout['verdict']} (score {low:+.2f} to {high:+.2f}, margin {about['margin']:g})"
        + "".join(f" · {word}" for word in also)
    )
