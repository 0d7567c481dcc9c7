"""Whether an answer that was kept would have done for another request, now that a model has answered that one too.

1. Two answers in tensors: as far as they agree; of outputs that no label can judge, whether they are all but equal.
2. Two chats: where they say the same words; else a judge is asked, a chat of the fleet, where the task names one.

Answers of two variants differ for other reasons than the request, so without a judge they are not compared.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import numpy as np

from semaforo.entities import Request, Semantics, TaskType
from semaforo.errors import InvalidRequest, SemaforoError
from semaforo.features.text import WORD
from semaforo.live.cache import Kept, Said
from semaforo.live.judging import Asks, told
from semaforo.live.question import said_text
from semaforo.observe.judge import agreement
from semaforo.wire.payload import Tensors

_CLOSE = 1e-3
_WORDS = "Answer with one word, yes or no."
_PROMPT = (
    "A question:\n{question}\n\nAn answer that is kept:\n{kept}\n\nAnother answer to the same question:\n{said}\n\n"
    "Is the answer that is kept right for the question, and does it say the same as the other one? "
)

log = logging.getLogger("semaforo.engine")


class Comparing:
    """Compares answers.

    Args:
        asks: The engine.
    """

    def __init__(self, asks: Asks) -> None:
        self._asks = asks
        self._judging: set[asyncio.Task[None]] = set()

    def compare(
        self,
        request: Request,
        question: str,
        task: TaskType,
        kept: Kept,
        said: Said,
        variant: str,
        then: Callable[[float], None],
    ) -> None:
        """Tell what would have been lost (0…1) by giving what was kept; `then` may be called later, or never.

        Args:
            request: Who was answered.
            question: In its words.
            task: Its task.
            kept: What would have been given.
            said: What was given.
            variant: By whom.
            then: Told of the loss.
        """
        semantic = task.cache.semantic
        if isinstance(said, Tensors) and isinstance(kept.said, Tensors):
            if variant == kept.variant:
                then(_tensors_lose(task, kept.said, said))
            return
        given, other = said_text(kept.said), said_text(said)
        if given is None or other is None:
            if variant == kept.variant:
                then(float(kept.said != said))
        elif _words(given) == _words(other):
            then(0.0)
        elif semantic is not None and semantic.judge:
            work = self._judge(request, semantic, (question, given, other), then)
            judging = asyncio.get_running_loop().create_task(work)
            self._judging.add(judging)
            judging.add_done_callback(self._judging.discard)
        elif variant == kept.variant:
            then(1.0)

    def close(self) -> None:
        """Ask no judge any more."""
        for judging in self._judging:
            judging.cancel()

    async def _judge(
        self,
        request: Request,
        semantic: Semantics,
        texts: tuple[str, str, str],
        then: Callable[[float], None],
    ) -> None:
        question, kept, said = texts
        prompt = _PROMPT.format(question=question, kept=kept, said=said) + _WORDS
        try:
            words = _words(await told(self._asks, request, semantic.judge, prompt, 8))
        except SemaforoError as error:
            log.info("'%s' could not judge an answer that is kept: %s", semantic.judge, error)
            return
        if words and words[0] in ("yes", "no"):
            then(float(words[0] == "no"))


def _tensors_lose(task: TaskType, kept: Tensors, said: Tensors) -> float:
    try:
        return 1.0 - agreement(task, said.arrays, kept.arrays)
    except InvalidRequest:
        same = kept.arrays.keys() == said.arrays.keys() and all(
            _close(kept.arrays[name], array) for name, array in said.arrays.items()
        )
        return float(not same)


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return np.allclose(a, b, rtol=_CLOSE) if a.dtype.kind == "f" else np.array_equal(a, b)


def _words(text: str) -> list[str]:
    return [word.lower() for word in WORD.findall(text) if word[0].isalnum()]
