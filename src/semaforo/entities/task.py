"""A task type: what requests want done, with the tensors or messages it takes and gives."""

from __future__ import annotations

from typing import Literal

import msgspec

from semaforo.entities.contract import Exploration, Preference
from semaforo.entities.tensor import TensorSpec


class Semantics(msgspec.Struct, frozen=True, omit_defaults=True):
    """How answers are given to requests that mean the same.

    Attributes:
        judge: Who judges answers; None = nobody.
        embedding: Task, model or alias that embeds texts.
        input: Input whose text is compared; "" = the only text there is.
        wait_s: Seconds a request waits for its embedding at most.
        most_wrong: Quality (0…1) that answers so given may lose on average.
        check: Share (0…1) of the requests like another one that are answered anew, to compare.
        judge: Task, model or alias of a chat that says whether an answer will do; "" = none.
    """

    embedding: str
    input: str = ""
    wait_s: float = 0.05
    most_wrong: float = 0.02
    check: float = 0.05
    judge: str = ""


class Caching(msgspec.Struct, frozen=True, omit_defaults=True):
    """How answers are kept to be given again.

    Attributes:
        bytes: Most to keep; 0 = none.
        keep_s: Seconds after which an answer is too old.
        sampled: Keep what a model has drawn by chance, too.
        semantic: Where they are given to requests that mean the same.
    """

    bytes: int = 0
    keep_s: float = 600.0
    sampled: bool = False
    semantic: Semantics | None = None


class Judging(msgspec.Struct, frozen=True, omit_defaults=True):
    """How answers are judged.

    Attributes:
        model: Task, model or alias of kind chat that judges.
        share: Share (0…1) of answers that are.
        prompt: What it is told, with ``{question}`` and ``{answer}``.
    """

    model: str
    share: float
    prompt: str


class Look(msgspec.Struct, frozen=True, omit_defaults=True):
    """As what an input is looked at.

    Attributes:
        kind: ``image``, ``audio``, ``table``, ``tensor``, ``text``, the name of an extractor of one's own,
            ``none`` = not at all, or "" = as its type says.
        rate: Samples of a sound in a second; 0 = not known.
    """

    kind: str = ""
    rate: float = 0.0


class TaskType(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a client asks for by name.

    Attributes:
        name: For example ``digits`` or ``chat``.
        kind: ``tensor`` for V2 tensors; ``chat`` for messages with streamed answers.
        interface: How OpenAI's protocol offers a tensor task beside V2: ``embedding``, ``moderation`` or
            ``transcription``, each with tensors of agreed names; empty = not at all.
        inputs: Tensors a request gives, in the task's own names.
        outputs: Tensors an answer holds, in the task's own names.
        prefer: The operator's preference among variants that meet a contract.
        deadline_s: Deadline in seconds where a request states none; None = none.
        max_queue_rows: Bound of the task's queue in rows.
        hedge: Run a second copy of idempotent work that takes longer than this many times its predicted
            service; 0 = never.
        explore: How much the router may try what does not look best.
        cache: How answers are kept to be given again.
        embedding: Task, model or alias that embeds requests for their predictions; "" = none.
        score_s: Seconds a request may be held for predicted qualities (`Score`); 0 = do not ask.
        looks: As what inputs are looked at, where the fleet file says.
        features: Source of a function of one's own that looks at whole requests; "" = none.
    """

    name: str
    kind: Literal["tensor", "chat"] = "tensor"
    interface: Literal["", "embedding", "moderation", "transcription"] = ""
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    prefer: Preference = Preference()
    deadline_s: float | None = None
    max_queue_rows: int = 4096
    hedge: float = 0.0
    score_s: float = 0.0
    explore: Exploration = Exploration()
    cache: Caching = Caching()
    embedding: str = ""
    judge: Judging | None = None
    looks: dict[str, Look] = {}
    features: str = ""
