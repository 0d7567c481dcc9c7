"""Settings of the queue on disk: where it lies, how much it keeps, whom it may tell."""

from __future__ import annotations

from typing import Annotated

import msgspec

from semaforo.config import forms
from semaforo.config.forms import Key


class DeferredSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The queue on disk behind `semaforo-mode: queue` and `/v1/batches`; without this section there is none."""

    path: Annotated[str, Key("File of the database; seen from the fleet file.")]
    keep: Annotated[float, Key(
        "How long results and files are kept, and how long work without a deadline may wait.", forms.DURATION,
    )] = 604_800.0  # fmt: skip
    max: Annotated[int, Key("Requests that wait or run; more is refused (429).", forms.COUNT)] = 100_000
    bytes: Annotated[int, Key(
        "Requests, results and files together; more is refused (507).", forms.SIZE,
    )] = 10_000_000_000  # fmt: skip
    in_flight: Annotated[int, Key("Requests from the queue that run at once.", forms.COUNT)] = 16
    webhooks: Annotated[tuple[str, ...], Key(
        "Urls, or beginnings of urls, that `semaforo-webhook` may name; none where left out.",
    )] = ()  # fmt: skip
    secret: Annotated[str, Key(
        "Signs webhooks (Standard Webhooks), best from the environment.", forms.SECRET,
    )] = ""  # fmt: skip
