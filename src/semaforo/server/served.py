"""Headers that say who served a request."""

from __future__ import annotations

from semaforo.live.answer import Answer
from semaforo.live.cache import REPLICA, SEMANTIC
from semaforo.server.http import Headers

_MOST = 4096
_CACHED = {REPLICA: b"hit", SEMANTIC: b"semantic"}


class ServedHeaders:
    """Makes ``semaforo-model``, ``-version``, ``-variant``, ``-replica``, ``-without`` and ``-request-id``.

    All but the last two are the same for every answer of a replica, so they are made once for each.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[bytes, bytes], ...]] = {}

    def of(self, answer: Answer, request_id: str) -> Headers:
        """Return the headers of an answer."""
        own = (b"semaforo-request-id", request_id.encode("ascii"))
        if answer.without:
            return (*self.who(answer), (b"semaforo-without", shown(answer.without).encode("ascii")), own)
        return (*self.who(answer), own)

    def who(self, answer: Answer) -> tuple[tuple[bytes, bytes], ...]:
        """Return the headers that do not depend on the request."""
        replica = answer.finish.replica
        if replica in _CACHED:
            # Whoever gave it first: not the same for every answer.
            replica = f"{replica} {answer.finish.variant}"
        known = self._known.get(replica)
        if known is None:
            if len(self._known) >= _MOST:
                self._known.clear()
            names = (b"model", b"version", b"variant", b"replica")
            values = (answer.model, answer.version, answer.variant, answer.finish.replica)
            known = tuple(
                (b"semaforo-" + name, _plain(value))
                for name, value in zip(names, values, strict=True)
                if value
            )
            if word := _CACHED.get(answer.finish.replica):
                known = (*known, (b"semaforo-cache", word))
            self._known[replica] = known
        return known


def shown(without: tuple[str, ...]) -> str:
    """Return what an answer had to do without as one header or one value of metadata."""
    return _plain("; ".join(without)).decode("ascii")


def _plain(value: str) -> bytes:
    """Return a value that may stand in a header: what is not printable ASCII becomes ``?``."""
    return "".join(c if " " <= c <= "~" else "?" for c in value).encode("ascii")
