"""A cascade as routing after the fact: the cheap answer is one more thing that is known of a request.

A router that is trained on tables made here is a verifier: it predicts what the dear model gains where the cheap
one has said what it said.
"""

from __future__ import annotations

import msgspec
import numpy as np

from semaforo.errors import InvalidRequest
from semaforo.features.answer import ANSWER_NUMBERS, answer_vector
from semaforo.features.signals import Signals
from semaforo.features.text import TEXT_NUMBERS, text_vector
from semaforo.routing.table import Table

QUESTION = tuple("question." + name.removeprefix("text.") for name in TEXT_NUMBERS)
FEATURES = (*ANSWER_NUMBERS, *QUESTION)


def answer_signals(question: str, answer: str) -> Signals:
    """Return what is known of a request once a model has answered it."""
    numbers = np.concatenate([answer_vector(question, answer), text_vector(question)])
    return Signals(f"{question}\n{answer}", dict(zip(FEATURES, numbers.tolist(), strict=True)))


def cascade_table(table: Table, cheap: str) -> Table:
    """Return a table from which a verifier of one model's answers is trained.

    Args:
        table: Scores, with answers, or with features of them (`answer.confidence` …).
        cheap: The model whose answers are looked at; the dear one's never are.

    Raises:
        InvalidRequest: There is nothing to look at, or no such model.
    """
    if cheap not in table.models:
        raise InvalidRequest(f"the table has no model '{cheap}'; it has {', '.join(table.models)}")
    if table.answers is None:
        if any(name.startswith("answer.") for name in table.features):
            return table
        raise InvalidRequest(
            "the table has neither a column 'answer' nor one such as 'feature.answer.confidence', "
            "so there is nothing to look at"
        )
    column = table.models.index(cheap)
    seen = [answer_signals(q, said[column]) for q, said in zip(table.prompts, table.answers, strict=True)]
    given = np.array([[s.numbers[name] for name in FEATURES] for s in seen])
    return msgspec.structs.replace(
        table,
        prompts=tuple(s.text for s in seen),
        features=(*table.features, *FEATURES),
        numbers=np.hstack([table.numbers, given]) if table.features else given,
        answers=None,
        embeddings=None,
    )
