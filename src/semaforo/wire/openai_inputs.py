"""OpenAI's embeddings and moderations at the door: a body checked, texts as the rows of one request.

Rules this module keeps:

1. A text is one row, a list of texts as many; the answer keeps their order.
2. Tokens are refused: they belong to the vocabulary of one model, and who answers is not settled yet.
3. Fields nobody here knows become parameters of the request, for the model to read.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from semaforo.entities import Priority
from semaforo.errors import InvalidRequest
from semaforo.wire.openai_fields import InvalidField, integer, named_model, shown, tier, typed


class TextsCall(msgspec.Struct, frozen=True):
    """A body that was checked.

    Attributes:
        model: Model, alias or task type as asked for, or ``auto``.
        texts: One for each row.
        parameters: Fields for the model to read.
        priority: Class by ``service_tier``; None where it says nothing.
        dimensions: Length of embedding that is wanted; 0 = not said.
        encoding: How an embedding is written: as numbers, or as the base64 of little-endian fp32.
    """

    model: str
    texts: tuple[str, ...]
    parameters: dict[str, Any]
    priority: Priority | None = None
    dimensions: int = 0
    encoding: Literal["float", "base64"] = "float"


def parse_embedding(body: Any) -> TextsCall:
    """Check a decoded body of ``/v1/embeddings``.

    Raises:
        InvalidField: What is wrong with which field.
        InvalidRequest: The body is no object.
    """
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object with 'model' and 'input'")
    encoding = typed(body, "encoding_format", str, "a text") or "float"
    if encoding not in ("float", "base64"):
        raise InvalidField("encoding_format", f"{shown(encoding)} is none of float, base64")
    return TextsCall(
        named_model(body),
        texts_of(body, "input"),
        _parameters(body),
        tier(body),
        integer(body, "dimensions", 0),
        encoding,  # type: ignore[arg-type]  # checked above
    )


def parse_moderation(body: Any) -> TextsCall:
    """Check a decoded body of ``/v1/moderations``, where the model may be left out.

    Raises:
        InvalidField: What is wrong with which field.
        InvalidRequest: The body is no object.
    """
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object with 'input'")
    return TextsCall(named_model(body, "auto"), texts_of(body, "input"), _parameters(body), tier(body))


def texts_of(body: dict[str, Any], field: str) -> tuple[str, ...]:
    """Return a field that is a text or a list of texts.

    Raises:
        InvalidField: It is something else, or empty.
    """
    value = body.get(field)
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not value:
        raise InvalidField(field, f"must be a text or a list of texts, not {shown(value)}")
    for number, item in enumerate(value):
        if isinstance(item, int | list) and not isinstance(item, bool):
            raise InvalidField(field, "tokens are of one model's vocabulary: send the texts themselves")
        if isinstance(item, dict) and "type" in item:
            raise InvalidField(f"{field}[{number}]", "parts of several kinds are not taken here: send texts")
        if not isinstance(item, str):
            raise InvalidField(f"{field}[{number}]", f"must be a text, not {shown(item)}")
    return tuple(value)


def _parameters(body: dict[str, Any]) -> dict[str, Any]:
    ours = ("model", "input", "encoding_format", "service_tier")
    return {name: value for name, value in body.items() if name not in ours and value is not None}
