"""``semaforo top``: asks a server for its figures again and again, and shows what changed."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Callable, Iterator

import msgspec
from rich.console import Console
from rich.live import Live

from semaforo.cli.output import show_json
from semaforo.cli.remote import body_of, server
from semaforo.cli.top_figures import Figures, View, between, same_server
from semaforo.cli.top_table import page
from semaforo.entities.units import parse_duration
from semaforo.errors import InvalidRequest, NotFound, NotReady, ProtocolError, SemaforoError

_LEAST_S = 0.1
_PATH = "/semaforo/v1/figures"


def run(url: str, key: str, interval: str, once: bool, as_json: bool) -> None:
    """Show a fleet until ``q`` or Ctrl-C; once where stdout is no terminal.

    Raises:
        SemaforoError: The server is not there at the beginning, or says no.
    """
    interval_s = parse_duration(interval)
    if not _LEAST_S <= interval_s <= 3600:
        raise InvalidRequest(f"--interval '{interval}' takes 100ms to 1h, for example 2s")
    before = _ask(url, key)
    if as_json or once or not sys.stdout.isatty():
        time.sleep(interval_s)
        after = _ask(url, key)
        if not same_server(before, after):
            raise NotReady(f"the server at {url} was started anew in between: ask again")
        view = between(before, after)
        console = Console(highlight=False)
        if as_json:
            show_json(view)
        else:
            console.print(page(view, url, console.width))
        return
    with contextlib.suppress(KeyboardInterrupt):
        _live(url, key, interval_s, before)


def _live(url: str, key: str, interval_s: float, latest: Figures) -> None:
    console = Console(highlight=False)
    view: View | None = None
    note = "counting"
    before: Figures | None = latest
    with _keys() as quits, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(page(view, url, console.width, console.height, note), refresh=True)
            if quits(interval_s):
                return
            try:
                after = _ask(url, key)
            except (NotReady, ProtocolError):
                # It may be starting anew: what is shown is kept, with the word that it is old.
                note = f"waiting for {url}"
                before = None
                continue
            note = "" if before is not None else "counting"
            if before is not None and same_server(before, after):
                view = between(before, after)
            elif before is not None:
                note = "started anew, counting"
            before = after


def _ask(url: str, key: str) -> Figures:
    with server(url, key) as client:
        try:
            found = body_of(client.get(_PATH, timeout=5.0))
        except NotFound:
            raise SemaforoError(
                f"{url} does not tell its figures: `semaforo top` watches a Semaforo server of this version"
            ) from None
    try:
        return msgspec.convert(found, Figures)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"the figures at {url} are of another version: {error}") from None


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """Let single keys be heard: what is given waits for so many seconds, and tells whether ``q`` was pressed."""
    if not sys.stdin.isatty():
        yield _only_wait
        return
    import termios
    import tty

    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)

    def quits(seconds: float) -> bool:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            ready, _, _ = select.select([number], [], [], left)
            if ready and os.read(number, 1) in (b"q", b"Q", b""):
                return True
        return False

    try:
        tty.setcbreak(number)
        yield quits
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def _only_wait(seconds: float) -> bool:
    time.sleep(seconds)
    return False
