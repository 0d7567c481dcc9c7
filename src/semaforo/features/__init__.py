"""Signals from payloads: small, pure, and cheap enough for every request."""

from semaforo.features.affinity import chat_affinity
from semaforo.features.needs import chat_needs
from semaforo.features.tokens import chat_tokens, text_tokens

__all__ = ["chat_affinity", "chat_needs", "chat_tokens", "text_tokens"]
