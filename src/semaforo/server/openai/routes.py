"""All routes of OpenAI's protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semaforo.server.http import Route
from semaforo.server.idempotency import KeptAnswers
from semaforo.server.inference import Inference
from semaforo.server.openai.chat import ChatCompletions
from semaforo.server.openai.completions import TextCompletions
from semaforo.server.openai.door import Door
from semaforo.server.openai.models import Models
from semaforo.server.openai.tensors import TensorRoutes

if TYPE_CHECKING:
    from semaforo.live.engine import Engine


def routes(engine: Engine, inference: Inference, kept: KeptAnswers) -> list[Route]:
    """Return the routes of this protocol."""
    door = Door(engine, inference, kept)
    models, tensors = Models(door), TensorRoutes(door)
    return [
        Route("POST", "/v1/chat/completions", "infer", ChatCompletions(door).create),
        Route("POST", "/v1/completions", "infer", TextCompletions(door).create),
        Route("POST", "/v1/embeddings", "infer", tensors.embeddings),
        Route("POST", "/v1/moderations", "infer", tensors.moderations),
        Route("POST", "/v1/audio/transcriptions", "infer", tensors.transcriptions),
        Route("GET", "/v1/models", "describe", models.list),
        Route("GET", "/v1/models/{model}", "describe", models.retrieve),
        Route("GET", "/v1/models/{owner}/{model}", "describe", models.retrieve),
    ]
