"""Embeddings and moderations in OpenAI's form, from the rows that a model gave."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from semaforo.entities.interface import Roles
from semaforo.errors import ModelFailed
from semaforo.wire.payload import Array, Tensors

_JSON = msgspec.json.Encoder()

FLAGGED_FROM = 0.5
"""The score from which a category counts, where the model has no verdict of its own."""


def embeddings_object(
    rows: Array, model: str, prompt_tokens: int, encoding: Literal["float", "base64"]
) -> dict[str, Any]:
    """Return the answer of ``/v1/embeddings``; `rows` is ``(texts, dim)``."""
    vectors = np.ascontiguousarray(rows, dtype="<f4")
    written: Sequence[Any]
    if encoding == "base64":
        written = [base64.b64encode(vector.tobytes()).decode("ascii") for vector in vectors]
    else:
        # Row by row: one call for all would hold up every other thread for as long as it takes.
        written = [msgspec.Raw(_JSON.encode(vector.tolist())) for vector in vectors]
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": value} for index, value in enumerate(written)
        ],
        "model": model,
        "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
    }


def moderations_object(result: Tensors, parts: Roles, request_id: str, model: str) -> dict[str, Any]:
    """Return the answer of ``/v1/moderations``: the model's verdicts, else what its scores say.

    Raises:
        ModelFailed: There are not as many scores as categories.
    """
    labels = parts.output.labels
    scores = np.asarray(result.arrays[parts.output.name], dtype=np.float64)
    if scores.ndim != 2 or scores.shape[1] != len(labels):
        raise ModelFailed(
            f"'{model}' gave scores of shape {list(scores.shape[1:])} for {len(labels)} categories"
        )
    # As Python prints the number that the model meant, not the double nearest to its fp32.
    shown = [[float(f"{score:.7g}") for score in row] for row in scores.tolist()]
    said = result.arrays
    verdicts = said["categories"].astype(bool) if "categories" in parts.extras else scores >= FLAGGED_FROM
    categories = np.asarray(verdicts)
    flagged = np.asarray(
        said["flagged"].astype(bool) if "flagged" in parts.extras else categories.any(axis=1)
    )
    return {
        "id": f"modr-{request_id}",
        "model": model,
        "results": [
            {
                "flagged": bool(flagged[row]),
                "categories": dict(zip(labels, categories[row].tolist(), strict=True)),
                "category_scores": dict(zip(labels, shown[row], strict=True)),
                "category_applied_input_types": {
                    label: ["text"] if on else []
                    for label, on in zip(labels, categories[row].tolist(), strict=True)
                },
            }
            for row in range(len(scores))
        ],
    }
