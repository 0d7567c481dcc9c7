"""What streams of OpenAI's protocol have in common: silence made audible, and who serves."""

from __future__ import annotations

from semaforo.catalog import Catalog
from semaforo.core.effects import Finish
from semaforo.live.answer import Answer
from semaforo.live.stream import Stream
from semaforo.server.http import Headers

SILENCE_S = 15.0
"""A stream that says nothing for so long sends a comment: what stands between drops connections that look idle."""

COMMENT = b": still working\n\n"


RESTARTS = (b"semaforo-stream", b"restart")
"""Header of a stream that may start over: a chunk with ``semaforo: {"restart": true}`` takes back all before it."""


def mode(catalog: Catalog, stream: Stream) -> Headers:
    """Return the header that says how a stream that has begun may go on, none where it only goes on."""
    template = catalog.templates.get(stream.variant)
    graph = template.options.get("graph") if template is not None else None
    return (RESTARTS,) if isinstance(graph, dict) and graph.get("stream") == "restart" else ()


def serving(stream: Stream) -> Answer:
    """Return who answers a stream that has begun, in the form of an answer."""
    if stream.answer is not None:
        return stream.answer
    model, version, variant = stream.variant.split("/", 2)
    finish = Finish(stream.request_id, "done", replica=stream.replica)
    return Answer(finish, None, model, version, variant)
