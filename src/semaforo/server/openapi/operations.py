"""What is said of each route beyond its method and pattern.

A route that is served and has no entry here, or an entry here that no route serves, fails a test.
"""

from __future__ import annotations

from typing import Any

import msgspec

from semaforo.server.admin import Question
from semaforo.server.feedback import Given
from semaforo.server.openapi import bodies_openai as openai
from semaforo.server.openapi import bodies_own as own
from semaforo.server.openapi import bodies_v2 as v2
from semaforo.server.routers import Proposal, Reason

JSON = "application/json"
FORM = "multipart/form-data"
EVENTS = "text/event-stream"
TEXT = "text/plain"
BYTES = "application/octet-stream"


class Operation(msgspec.Struct, frozen=True):
    """One route.

    Attributes:
        tag: Group that it stands in.
        summary: One line.
        takes: Type of the body, or None.
        gives: Type of a good answer's body, or None where it is no JSON.
        form: Media type of the body.
        also: Further media types of a good answer.
        status: Status of a good answer.
        query: Name → (schema, description) of what the query may hold.
        contract: Whether the ``semaforo-*`` headers count.
        binary: Whether the binary tensor extension is taken.
        optional: Whether the body may be left out.
    """

    tag: str
    summary: str
    takes: Any = None
    gives: Any = None
    form: str = JSON
    also: tuple[str, ...] = ()
    status: int = 200
    query: dict[str, tuple[dict[str, Any], str]] = {}
    contract: bool = False
    binary: bool = False
    optional: bool = False


HEADERS: dict[str, tuple[dict[str, Any], str]] = {
    "deadline-ms": (
        {"type": "number", "exclusiveMinimum": 0},
        "Milliseconds within which an answer is of use.",
    ),
    "priority": ({"type": "string"}, "critical, high, normal or low; or 1 (highest) to 4, 0 = normal."),
    "min-quality": ({"type": "number", "minimum": 0, "maximum": 1}, "Least quality of the variant."),
    "max-cost": ({"type": "number", "minimum": 0}, "Most US dollars."),
    "privacy": ({"type": "string", "enum": ["public", "internal", "site"]}, "Class of the data."),
    "tenant": ({"type": "string", "maxLength": 128}, "On whose behalf; a key may have to allow it."),
    "variant": ({"type": "string", "maxLength": 128}, "Name of the variant, which alone may answer."),
    "cache": ({"type": "string", "enum": ["off"]}, "`off` takes no answer that was kept, and keeps none."),
    "session": ({"type": "string", "maxLength": 256}, "What may profit from the same replica."),
    "idempotency-key": (
        {"type": "string", "maxLength": 256},
        "A repeated request gets the first one's answer.",
    ),
    "mode": ({"type": "string", "enum": ["queue"]}, "`queue` keeps it on disk and answers 202 at once."),
    "webhook": (
        {"type": "string", "maxLength": 2048},
        "With `queue`: the url that is told when it has ended.",
    ),
}
"""By name, without the prefix ``semaforo-``."""

_Query = dict[str, tuple[dict[str, Any], str]]
_LIMIT: _Query = {"limit": ({"type": "integer", "minimum": 1}, "Most entries.")}
_PAGE: _Query = {**_LIMIT, "after": ({"type": "string"}, "Id of the last entry that was seen.")}
_V2, _OPENAI, _ADMIN, _LATER = "Open Inference Protocol V2", "OpenAI", "Operation", "Deferred work"
_MODEL = "/v2/models/{model}"
_VERSION = _MODEL + "/versions/{version}"
_AT = "/semaforo/v1"


def _both(method: str, rest: str, operation: Operation) -> dict[tuple[str, str], Operation]:
    return {(method, _MODEL + rest): operation, (method, _VERSION + rest): operation}


OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "/v2"): Operation(_V2, "Who serves, and which extensions", gives=v2.ServerMetadata),
    ("GET", "/v2/health/live"): Operation(_V2, "Whether the server answers", gives=v2.Live),
    ("GET", "/v2/health/ready"): Operation(_V2, "Whether some task can be served", gives=dict[str, Any]),
    ("GET", "/v2/models"): Operation(_V2, "Names that can be asked for", gives=dict[str, list[Any]]),
    ("GET", "/v2/models/stats"): Operation(_V2, "Statistics of all models", gives=v2.Statistics),
    ("POST", "/v2/repository/index"): Operation(
        _V2, "States of all versions", dict[str, bool], list[v2.RepositoryEntry], optional=True
    ),
    ("POST", "/v2/repository/models/{model}/load"): Operation(
        _V2, "Put a model in service", dict[str, Any], dict[str, Any], optional=True
    ),
    ("POST", "/v2/repository/models/{model}/unload"): Operation(
        _V2, "Take a model out of service", dict[str, Any], dict[str, Any], optional=True
    ),
    **_both("GET", "", Operation(_V2, "What a target takes and gives", gives=v2.ModelMetadata)),
    **_both("GET", "/ready", Operation(_V2, "Whether a target can be served", gives=dict[str, Any])),
    **_both("GET", "/config", Operation(_V2, "A target's configuration, as Triton's", gives=dict[str, Any])),
    **_both("GET", "/stats", Operation(_V2, "Statistics of a target's models", gives=v2.Statistics)),
    **_both(
        "POST",
        "/infer",
        Operation(_V2, "Infer", v2.InferRequest, v2.InferResponse, also=(BYTES,), contract=True, binary=True),
    ),
    **_both(
        "POST",
        "/generate",
        Operation(_V2, "Generate", v2.GenerateRequest, v2.GenerateResponse, contract=True),
    ),
    **_both(
        "POST",
        "/generate_stream",
        Operation(_V2, "Generate, as a stream", v2.GenerateRequest, also=(EVENTS,), contract=True),
    ),
    ("POST", "/v1/chat/completions"): Operation(
        _OPENAI, "Chat", openai.ChatRequest, openai.ChatCompletion, also=(EVENTS,), contract=True
    ),
    ("POST", "/v1/completions"): Operation(
        _OPENAI,
        "Complete a prompt",
        openai.CompletionRequest,
        openai.Completion,
        also=(EVENTS,),
        contract=True,
    ),
    ("POST", "/v1/embeddings"): Operation(
        _OPENAI, "Embed texts", openai.EmbeddingRequest, openai.Embeddings, contract=True
    ),
    ("POST", "/v1/moderations"): Operation(
        _OPENAI, "Judge texts", openai.ModerationRequest, openai.Moderation, contract=True
    ),
    ("POST", "/v1/audio/transcriptions"): Operation(
        _OPENAI,
        "Write down what is said",
        openai.TranscriptionRequest,
        openai.Transcription,
        FORM,
        (TEXT,),
        contract=True,
    ),
    ("GET", "/v1/models"): Operation(_OPENAI, "Names that can be asked for", gives=openai.Models),
    ("GET", "/v1/models/{model}"): Operation(_OPENAI, "One of them", gives=openai.ModelObject),
    ("GET", "/v1/models/{owner}/{model}"): Operation(
        _OPENAI, "One whose name has a slash", gives=openai.ModelObject
    ),
    ("POST", "/v1/files"): Operation(
        _LATER, "Upload a file of requests", openai.FileUpload, openai.FileObject, FORM
    ),
    ("GET", "/v1/files"): Operation(
        _LATER,
        "List files",
        gives=openai.Page,
        query={
            **_PAGE,
            "purpose": ({"type": "string"}, "Only these."),
            "order": ({"type": "string", "enum": ["asc", "desc"]}, "By time."),
        },
    ),
    ("GET", "/v1/files/{id}"): Operation(_LATER, "Show a file", gives=openai.FileObject),
    ("DELETE", "/v1/files/{id}"): Operation(_LATER, "Delete a file", gives=openai.Deleted),
    ("GET", "/v1/files/{id}/content"): Operation(_LATER, "Download a file", also=(BYTES,)),
    ("POST", "/v1/batches"): Operation(_LATER, "Queue a file of requests", openai.BatchRequest, openai.Batch),
    ("GET", "/v1/batches"): Operation(_LATER, "List batches", gives=openai.Page, query=_PAGE),
    ("GET", "/v1/batches/{id}"): Operation(_LATER, "Show how a batch stands", gives=openai.Batch),
    ("POST", "/v1/batches/{id}/cancel"): Operation(_LATER, "Call a batch off", gives=openai.Batch),
    ("GET", f"{_AT}/deferred"): Operation(
        _LATER,
        "List queued requests",
        gives=openai.Page,
        query={**_PAGE, "status": ({"type": "string"}, "Only these, separated by commas.")},
    ),
    ("GET", f"{_AT}/deferred/{{id}}"): Operation(_LATER, "Show how a request stands", gives=own.Deferred),
    ("DELETE", f"{_AT}/deferred/{{id}}"): Operation(_LATER, "Call a request off", gives=own.Deferred),
    ("GET", f"{_AT}/deferred/{{id}}/result"): Operation(
        _LATER,
        "What the direct call would have got; 202 until it is there",
        gives=dict[str, Any],
        also=(BYTES,),
    ),
    ("GET", f"{_AT}/fleet"): Operation(_ADMIN, "Tasks, models, variants and replicas", gives=own.Fleet),
    ("GET", f"{_AT}/figures"): Operation(_ADMIN, "Counters, and what is going on", gives=own.Figures),
    ("GET", f"{_AT}/decisions"): Operation(_ADMIN, "The latest decisions", gives=own.Decisions, query=_LIMIT),
    ("GET", f"{_AT}/decisions/{{id}}"): Operation(
        _ADMIN, "Why a request went where it went", gives=own.Decision
    ),
    ("POST", f"{_AT}/feedback"): Operation(
        "decisions",
        "Say what an answer was worth.",
        Given,
        own.Learned,
    ),
    ("GET", f"{_AT}/quality"): Operation(
        "decisions",
        "Show what variants have shown themselves to be worth.",
        gives=own.Qualities,
    ),
    ("GET", f"{_AT}/frontier"): Operation(
        _ADMIN,
        "What quality costs, and where the fleet stands",
        gives=own.Frontiers,
        query={"task": ({"type": "string"}, "Only this task.")},
    ),
    ("GET", f"{_AT}/routers"): Operation(
        _ADMIN, "Trained routers: in service, candidates, verdicts", gives=own.Routers
    ),
    ("POST", f"{_AT}/routers/{{task}}/candidate"): Operation(
        _ADMIN, "Try a router beside the one in service", Proposal, own.RouterOfTask
    ),
    ("POST", f"{_AT}/routers/{{task}}/promote"): Operation(
        _ADMIN, "Put the candidate in service", Reason, own.RouterOfTask, optional=True
    ),
    ("POST", f"{_AT}/routers/{{task}}/rollback"): Operation(
        _ADMIN, "Drop the candidate, or go back to the router before", Reason, own.RouterOfTask, optional=True
    ),
    ("POST", f"{_AT}/decide"): Operation(
        _ADMIN, "The decision a request would meet now", Question, own.Decided, contract=True
    ),
    ("POST", f"{_AT}/models/{{model}}/load"): Operation(
        _ADMIN, "Put a model in service", dict[str, Any], dict[str, Any], optional=True
    ),
    ("POST", f"{_AT}/models/{{model}}/unload"): Operation(
        _ADMIN, "Take a model out of service", dict[str, Any], dict[str, Any], optional=True
    ),
    ("POST", f"{_AT}/variants/{{id}}/scale"): Operation(
        _ADMIN, "Set the number of a variant's replicas", own.Scale, own.Scaled
    ),
    ("POST", f"{_AT}/models/{{model}}/versions/{{version}}/variants/{{variant}}/scale"): Operation(
        _ADMIN, "Set the number of a variant's replicas", own.Scale, own.Scaled
    ),
    ("POST", f"{_AT}/replicas/{{id}}/drain"): Operation(
        _ADMIN, "Finish a replica's work, then stop it", gives=own.Drained, status=202
    ),
    ("GET", "/metrics"): Operation(_ADMIN, "Figures for Prometheus", also=(TEXT,)),
    ("GET", "/openapi.json"): Operation(_ADMIN, "This description", gives=dict[str, Any]),
}
