"""What an OpenAI-compatible server answers to embeddings, moderations and transcriptions, as arrays.

Rules this module keeps:

1. One row for each input, in the order of the inputs, whatever the order of the answer.
2. What does not hold all that was asked for is the server's failure (`ModelFailed`), never the client's.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from semaforo.errors import ModelFailed
from semaforo.wire.payload import Array
from semaforo.wire.upstream import parse_error, stream_error


def parse_embeddings(data: bytes, texts: Sequence[str]) -> dict[str, Array]:
    """Return ``embedding`` ``(rows, dim)`` and ``tokens`` ``(rows,)``.

    A server counts the tokens of all texts together; each is given its share by its length.

    Raises:
        Refused: The body says that a limit is reached.
        ModelFailed: It is an error, or does not hold one embedding of the same length for each text.
    """
    body = _object(data)
    rows = [_vector(entry.get("embedding")) for entry in _entries(body.get("data"), len(texts), "embeddings")]
    if len({row.shape for row in rows}) > 1:
        raise ModelFailed("the upstream sent embeddings of several lengths")
    usage = body.get("usage")
    total = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return {"embedding": np.stack(rows), "tokens": _shares(total if isinstance(total, int) else None, texts)}


def parse_moderations(data: bytes, rows: int, labels: Sequence[str]) -> dict[str, Array]:
    """Return ``scores`` and ``categories`` ``(rows, labels)``, and ``flagged`` ``(rows,)``.

    Raises:
        Refused: The body says that a limit is reached.
        ModelFailed: It is an error, or lacks a result or a category.
    """
    results = _entries(_object(data).get("results"), rows, "results")
    return {
        "scores": np.array([_named(r, "category_scores", labels) for r in results], np.float32),
        "categories": np.array([_named(r, "categories", labels) for r in results], np.bool_),
        "flagged": np.array([bool(r.get("flagged")) for r in results], np.bool_),
    }


def parse_transcription(data: bytes) -> dict[str, Array]:
    """Return ``text`` and ``details`` (all else that was said, as JSON) of one file, without rows.

    Raises:
        Refused: The body says that a limit is reached.
        ModelFailed: It is an error, or holds no text.
    """
    body = _object(data)
    text = body.pop("text", None)
    if not isinstance(text, str):
        raise ModelFailed(f"the upstream sent a transcription without a text: {_shown(data)}")
    details = msgspec.json.encode(body).decode()
    return {"text": np.array(text, dtype=object), "details": np.array(details, dtype=object)}


def _object(data: bytes) -> dict[str, Any]:
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ModelFailed(f"the upstream sent what is no JSON: {_shown(data)}") from None
    error = parse_error(body)
    if error is not None:
        raise stream_error(error)
    if not isinstance(body, dict):
        raise ModelFailed(f"the upstream sent no JSON object: {_shown(data)}")
    return body


def _entries(entries: Any, rows: int, what: str) -> list[dict[str, Any]]:
    if not isinstance(entries, list) or len(entries) != rows or not all(isinstance(e, dict) for e in entries):
        count = len(entries) if isinstance(entries, list) else "no"
        raise ModelFailed(f"the upstream sent {count} {what} for {rows} inputs")
    indexes = [entry.get("index") for entry in entries]
    if sorted(i for i in indexes if isinstance(i, int)) == list(range(rows)):
        return sorted(entries, key=lambda entry: int(entry["index"]))
    return entries


def _vector(value: Any) -> Array:
    row: Array
    try:
        if isinstance(value, str):
            return np.frombuffer(base64.b64decode(value, validate=True), "<f4")
        row = np.asarray(value, dtype=np.float32)
    except (ValueError, TypeError, binascii.Error):
        row = np.empty(())
    if row.ndim != 1 or not row.size:
        raise ModelFailed("the upstream sent an embedding that is no list of numbers")
    return row


def _shares(total: int | None, texts: Sequence[str]) -> Array:
    sizes = np.array([len(text.encode("utf-8", "surrogatepass")) for text in texts], np.int64)
    if total is None:
        return (sizes + 3) // 4
    # Rounded as running sums, so that the shares add up to what the server counted.
    sums = np.cumsum(np.maximum(sizes, 1))
    return np.diff(total * sums // sums[-1], prepend=0)


def _named(result: dict[str, Any], field: str, labels: Sequence[str]) -> list[Any]:
    values = result.get(field)
    if not isinstance(values, dict):
        raise ModelFailed(f"the upstream sent a result without {field}")
    missing = [label for label in labels if not isinstance(values.get(label), int | float)]
    if missing:
        raise ModelFailed(
            f"the upstream's {field} lack '{missing[0]}': state the labels of the task's scores as it has them: "
            f"{', '.join(values)}"
        )
    return [values[label] for label in labels]


def _shown(data: bytes) -> str:
    return data[:200].decode("utf-8", "replace")
