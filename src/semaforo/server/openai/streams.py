"""What streams of OpenAI's protocol have in common: silence made audible, and who serves."""

from __future__ import annotations

from semaforo.core.effects import Finish
from semaforo.live.answer import Answer
from semaforo.live.stream import Stream

SILENCE_S = 15.0
"""A stream that says nothing for so long sends a comment: what stands between drops connections that look idle."""

COMMENT = b": still working\n\n"


def serving(stream: Stream) -> Answer:
    """Return who answers a stream that has begun, in the form of an answer."""
    if stream.answer is not None:
        return stream.answer
    model, version, variant = stream.variant.split("/", 2)
    finish = Finish(stream.request_id, "done", replica=stream.replica)
    return Answer(finish, None, model, version, variant)
