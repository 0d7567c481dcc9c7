"""What requests looked like when they were scored, until feedback on them comes."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from semaforo.core.events import Feedback, Scored

Seen = tuple[Mapping[str, float], Mapping[str, float]]


class Contexts:
    """The last contexts; the oldest is forgotten first.

    Args:
        size: How many to keep.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._seen: dict[str, Seen] = {}

    def scored(self, event: Scored) -> None:
        """Take in what a request looks like."""
        if event.context:
            self._seen[event.request] = (event.context, event.gain)
            if len(self._seen) > self._size:
                del self._seen[next(iter(self._seen))]

    def added(self, feedback: Feedback, parent: str = "") -> Feedback:
        """Return feedback with what is known of its request, or of the one that it is a copy of."""
        found = self._seen.get(feedback.request) or self._seen.get(parent)
        if found is None:
            return feedback
        context, gain = found
        return msgspec.structs.replace(
            feedback, context=dict(context), gain=float(gain.get(feedback.variant, 0.0))
        )
