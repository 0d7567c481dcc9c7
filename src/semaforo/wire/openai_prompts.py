"""OpenAI's text completions at the door: a body checked, and one chat made of each prompt.

Rules this module keeps:

1. One choice is one chat, so a list of prompts and `n` make as many chats, in the order of the choices.
2. ``echo`` is done here; with ``logprobs``, which only the model knows of the prompt, it is the model's affair.
3. Fields that only a model which goes on with prompts can honour are told apart (`PromptCall.special`): a chat
   would drop them in silence.
4. Every other field stays in the body as it was sent.
"""

from __future__ import annotations

from typing import Any

import msgspec

from semaforo.entities import Priority
from semaforo.errors import InvalidRequest
from semaforo.wire.openai_fields import InvalidField, integer, named_model, shown, tier, typed
from semaforo.wire.openai_inputs import texts_of
from semaforo.wire.payload import Chat, prompted

MOST_CHOICES = 128
"""Prompts times `n` of one request; each is scheduled by itself."""

_OURS = ("prompt", "n", "best_of", "echo")


class PromptCall(msgspec.Struct, frozen=True):
    """A body that was checked.

    Attributes:
        model: Model, alias or task type as asked for, or ``auto``.
        prompts: One for each choice.
        chats: What each choice asks for.
        special: Fields that are set and need a model which goes on with prompts.
        stream: Whether the client wants server-sent events.
        include_usage: Whether a stream ends with a chunk of usage.
        max_tokens: Most tokens of each choice; 0 = not said.
        echo: Whether a choice begins with its prompt.
        priority: Class by ``service_tier``; None where it says nothing.
    """

    model: str
    prompts: tuple[str, ...]
    chats: tuple[Chat, ...]
    special: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False
    max_tokens: int = 0
    echo: bool = False
    priority: Priority | None = None


def parse_prompts(body: Any) -> PromptCall:
    """Check a decoded body.

    Raises:
        InvalidField: What is wrong with which field.
        InvalidRequest: The body is no object.
    """
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object with 'model' and 'prompt'")
    model = named_model(body)
    prompts = texts_of(body, "prompt")
    n = integer(body, "n", 1)
    if len(prompts) * n > MOST_CHOICES:
        raise InvalidField(
            "prompt" if len(prompts) > MOST_CHOICES else "n",
            f"{len(prompts)} prompts with {n} choices each are more than {MOST_CHOICES}: send several requests",
        )
    stream = typed(body, "stream", bool, "true or false") or False
    options = typed(body, "stream_options", dict, "an object")
    if options is not None and not stream:
        raise InvalidField("stream_options", "is allowed only where 'stream' is true")
    _stops(body.get("stop"))
    best_of = integer(body, "best_of", n)
    if best_of < n or (best_of > n > 1):
        raise InvalidField(
            "best_of", f"choosing {n} of {best_of} is not done here: leave it out, or set n to 1"
        )
    echo = typed(body, "echo", bool, "true or false") or False
    logprobs = body.get("logprobs") is not None and integer(body, "logprobs", 0, least=0) >= 0
    limit = integer(body, "max_tokens", 0, least=0)
    special = {
        "suffix": bool(typed(body, "suffix", str, "a text")),
        "logprobs": logprobs,
        "best_of": best_of > n,
        "max_tokens": body.get("max_tokens") == 0,
    }
    fields = {name: value for name, value in body.items() if name not in _OURS}
    if best_of > n:
        fields["best_of"] = best_of
    if echo and logprobs:
        fields["echo"] = True
    each = tuple(prompt for prompt in prompts for _ in range(n))
    return PromptCall(
        model,
        each,
        tuple(prompted(fields, prompt) for prompt in each),
        tuple(name for name, set_ in special.items() if set_),
        stream,
        bool(options and typed(options, "include_usage", bool, "true or false", "stream_options.")),
        limit,
        echo and not logprobs,
        tier(body),
    )


def _stops(stop: Any) -> None:
    texts = stop if isinstance(stop, list) else [stop]
    if stop is not None and not all(isinstance(text, str) for text in texts):
        raise InvalidField("stop", f"must be a text or a list of texts, not {shown(stop)}")
