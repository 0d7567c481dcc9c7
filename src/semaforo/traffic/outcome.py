"""What became of every request of a run, as arrays."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

BROKEN = 0
UNANSWERED = -1
CUT_SHORT = -2
"""What `Outcome.status` says in place of an HTTP status: the connection broke; nothing came until the end of the
run; the answer was a success that broke off (a chat's stream)."""

Floats = NDArray[np.float64]
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_MOST_REASONS = 100


class Reasons:
    """Counts why requests ended badly, reasons that differ only in their numbers together."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[int, str]] = Counter()
        self._examples: dict[tuple[int, str], str] = {}

    def add(self, status: int, text: str, count: int = 1) -> None:
        """Count some."""
        key = status, _NUMBER.sub("#", text)
        if key not in self._examples:
            if len(self._examples) >= _MOST_REASONS:
                key = status, ""
            self._examples.setdefault(key, text if key[1] else "other reasons")
        self.counts[status, self._examples[key]] += count


class Outcome(msgspec.Struct):
    """What happened, one entry a request; times in seconds since `began` (monotonic), NaN = never.

    Attributes:
        seconds: How long requests were sent; less than was asked where the run was ended early.
        ended: When the last answer was no longer waited for.
        kind: Index of its kind.
        scheduled: When it was meant to be sent.
        taken: When the generator came to it.
        sent: When it was sent: later than `taken` where no connection was free.
        done: When its answer was whole.
        status: HTTP status, or one of the constants above.
        who: Index into `names` of the model and variant that served it.
        first, last: When a chat's first and last token came.
        tokens: Tokens of a chat's answer.
        names: ``model/variant``; the first is "".
        reasons: Requests that ended badly by status and reason.
        cpu: Share of a core that the busiest generator used.
        connections: Most connections that were open at once.
        sent_bytes, received_bytes: On the wire.
        full: Requests that had to wait as all allowed connections were in use.
    """

    began: float
    seconds: float
    ended: float
    kind: NDArray[np.int16]
    scheduled: Floats
    taken: Floats
    sent: Floats
    done: Floats
    status: NDArray[np.int16]
    who: NDArray[np.int16]
    first: Floats
    last: Floats
    tokens: NDArray[np.int32]
    names: tuple[str, ...] = ("",)
    reasons: dict[tuple[int, str], int] = {}
    cpu: float = 0.0
    connections: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    full: int = 0

    @property
    def latency(self) -> Floats:
        """Seconds from the moment a request was meant to be sent to its answer."""
        return self.done - self.scheduled

    @property
    def lateness(self) -> Floats:
        """Seconds by which the generator itself was late."""
        return self.taken - self.scheduled

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Which requests were answered well."""
        return (self.status >= 200) & (self.status < 300)


_ARRAYS = ("kind", "scheduled", "taken", "sent", "done", "status", "who", "first", "last", "tokens")


def joined(parts: Sequence[Outcome]) -> Outcome:
    """Return the outcomes of generators that ran side by side as one, in the order of the schedule."""
    names = list(dict.fromkeys(name for part in parts for name in part.names))
    who = [np.array([names.index(n) for n in part.names], np.int16)[part.who] for part in parts]
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS}
    arrays["who"] = np.concatenate(who)
    order = np.argsort(arrays["scheduled"], kind="stable")
    reasons = Reasons()
    for part in parts:
        for (status, text), count in part.reasons.items():
            reasons.add(status, text, count)
    return Outcome(
        began=parts[0].began,
        seconds=max(part.seconds for part in parts),
        ended=max(part.ended for part in parts),
        **{name: array[order] for name, array in arrays.items()},
        names=tuple(names),
        reasons=dict(reasons.counts.most_common()),
        cpu=max(part.cpu for part in parts),
        connections=sum(part.connections for part in parts),
        sent_bytes=sum(part.sent_bytes for part in parts),
        received_bytes=sum(part.received_bytes for part in parts),
        full=sum(part.full for part in parts),
    )
