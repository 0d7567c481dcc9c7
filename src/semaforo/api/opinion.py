"""What a program says of an answer, as feedback."""

from __future__ import annotations

from typing import Any

import numpy as np

from semaforo.api.answer import FleetAnswer
from semaforo.errors import InvalidRequest
from semaforo.live.feedback import Opinion


def request_of(answer: FleetAnswer | str) -> str:
    """Return the id of the request that an answer answers.

    Raises:
        InvalidRequest: It is neither an answer nor an id.
    """
    if isinstance(answer, FleetAnswer):
        return answer.request_id
    if not isinstance(answer, str):
        raise InvalidRequest(f"feedback is of an answer, or of the id of its request, not of {answer!r:.80}")
    return answer


def opinion_of(
    score: float | None, correct: bool | None, label: Any, better_than: FleetAnswer | str
) -> Opinion:
    """Return the opinion that was given in one of four ways.

    Raises:
        InvalidRequest: None was used, or more than one.
    """
    other = request_of(better_than)
    if sum((score is not None, correct is not None, label is not None, bool(other))) != 1:
        raise InvalidRequest("feedback is one of: score, correct, label, better_than")
    if correct is not None:
        if not isinstance(correct, bool | np.bool_):
            raise InvalidRequest(f"correct is {correct!r}; it takes True or False")
        score = 1.0 if correct else 0.0
    if score is not None and not isinstance(score, int | float | np.number):
        raise InvalidRequest(f"score is {score!r:.80}; it takes a number from 0 to 1")
    return Opinion(None if score is None else float(score), _listed(label), other)


def _listed(label: Any) -> Any:
    if isinstance(label, dict):
        return {name: _listed(value) for name, value in label.items()}
    return label.tolist() if isinstance(label, (np.ndarray, np.generic)) else label
