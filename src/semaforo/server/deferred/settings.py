"""Settings of the queue on disk, as the front reads them."""

from __future__ import annotations

from pathlib import Path

import msgspec


class DeferredSettings(msgspec.Struct, frozen=True):
    """Where deferred work is kept, how much of it, and whom it may tell.

    Attributes:
        path: The database.
        keep_s: Seconds that results and files are kept, and that work without a deadline may wait.
        max_items: Requests that wait or run.
        max_bytes: Bytes of requests, results and files.
        in_flight: Requests from the queue that run at once.
        webhooks: Urls, or beginnings of urls, that may be told.
        secret: Signs what they are told.
    """

    path: Path
    keep_s: float = 604_800.0
    max_items: int = 100_000
    max_bytes: int = 10_000_000_000
    in_flight: int = 16
    webhooks: tuple[str, ...] = ()
    secret: str = ""
