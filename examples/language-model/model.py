"""The language model as Semaforo serves it: a class with `load`, and a generator of one character at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformer import Cache, Transformer

from semaforo.errors import InvalidRequest, RuntimeLoadError
from semaforo.wire.payload import ChatChunk

CONTEXT = 2048
"""Most characters of a prompt and its answer."""


class Writer:
    """Goes on from what it is told.

    It takes neither ``max_tokens`` nor ``stop``: those are kept for it. It writes as many answers at once as it has
    ``slots``; each step of the generator runs on a thread, and torch lets go of the interpreter within.
    """

    def __init__(self, weights: str = "weights.safetensors") -> None:
        """Say where the weights are; a relative path is looked for beside this file."""
        self._weights = Path(__file__).with_name(weights)

    def load(self, device: str = "cpu") -> None:
        """Load the weights."""
        if not self._weights.exists():
            raise RuntimeLoadError(f"{self._weights} is missing: run 'python train.py' first")
        torch.set_num_threads(1)  # streams share the processors
        with safe_open(self._weights, "pt", device) as file:
            self._characters: list[str] = json.loads(file.metadata()["characters"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no dict)
        self._places = {character: place for place, character in enumerate(self._characters)}
        self._model = Transformer(len(self._characters)).to(device).eval()
        self._model.load_state_dict(state)
        self._device = device

    def __call__(
        self, messages: list[dict[str, Any]], temperature: float | None = 0.7, seed: int | None = None
    ) -> Iterator[ChatChunk]:
        """Write on from the messages: at temperature 0 the likeliest character each time."""
        ids = self._ids(messages)
        heat = 0.7 if temperature is None else temperature
        if not isinstance(heat, (int, float)) or heat < 0:
            raise InvalidRequest("temperature is a number, 0 or more")
        chance = torch.Generator(self._device)
        chance.manual_seed(seed if isinstance(seed, int) else chance.seed())
        caches: list[Cache] | None = None
        coming = torch.tensor([ids], device=self._device)
        for written in range(1, CONTEXT - len(ids) + 1):
            logits, caches = self.step(coming, caches, len(ids) + written - 1 if caches else 0)
            coming = pick(logits, heat, chance)
            yield ChatChunk(
                {"content": self._characters[int(coming)]},
                usage={
                    "prompt_tokens": len(ids),
                    "completion_tokens": written,
                    "total_tokens": len(ids) + written,
                },
            )
        yield ChatChunk(finish_reason="length", tokens=0)

    @torch.inference_mode()
    def step(
        self, ids: torch.Tensor, caches: list[Cache] | None, begin: int
    ) -> tuple[torch.Tensor, list[Cache]]:
        """Return the logits of the next character after `ids`, the first of which stands at `begin`."""
        logits, caches = self._model(ids, caches, begin)
        return logits[:, -1], caches

    def _ids(self, messages: list[dict[str, Any]]) -> list[int]:
        text = "\n".join(said(message) for message in messages) or "\n"
        if len(text) >= CONTEXT:
            raise InvalidRequest(f"the prompt has {len(text)} tokens, and the context holds {CONTEXT}")
        return [self._places.get(character, self._places[" "]) for character in text]


def said(message: dict[str, Any]) -> str:
    """Return the text of a message."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def pick(logits: torch.Tensor, temperature: float, chance: torch.Generator) -> torch.Tensor:
    """Pick the next character, ``(1, 1)``, from logits ``(1, characters)``."""
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=chance)
