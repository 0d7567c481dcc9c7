"""The admin API under ``/semaforo/v1``: the fleet, decisions and why, and what an operator may change.

| route | action | what |
| --- | --- | --- |
| GET fleet | read | tasks, models with versions and variants, replicas |
| GET figures | read | counters and what is going on now (`semaforo.server.figures`) |
| GET frontier?task=T | read | what quality costs, and where the fleet stands (`semaforo.server.frontier`) |
| GET routers, POST routers/{task}/… | read, operate | trained routers (`semaforo.server.routers`) |
| POST feedback, GET quality | infer, read | what answers were worth (`semaforo.server.feedback`) |
| GET decisions?limit=20 | read | the latest decisions, newest first |
| GET decisions/{id} | read | one decision; a unique beginning of the id will do |
| POST decide | infer | the decision a request would meet now, without running it |
| POST models/{model}/load, models/{model}/unload | operate | as in V2's repository |
| POST variants/{id}/scale | operate | set the number of replicas: ``{"replicas": n}`` |
| POST models/{model}/versions/{version}/variants/{variant}/scale | operate | the same |
| POST replicas/{id}/drain | operate | no new work; stopped when idle |

A variant's id has slashes in it; in a path they are written ``%2F``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from semaforo.entities import Ref, Request, Variant
from semaforo.entities.tensor import parse_shape_key
from semaforo.errors import InvalidRequest, NotFound
from semaforo.features.signals import Signals
from semaforo.live.auto import candidates, is_auto
from semaforo.observe.explain import Explanation, render
from semaforo.routing.tasks import Given, infer
from semaforo.server import feedback, figures, frontier, routers
from semaforo.server.http import HttpRequest, Response, Route, json_response
from semaforo.server.inference import Inference
from semaforo.server.shown import shown
from semaforo.server.v2 import V2
from semaforo.wire.not_json import NOT_JSON, told

if TYPE_CHECKING:
    from semaforo.live.engine import Engine

_MOST_REPLICAS = 1024


class Question(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``decide``: a request without its payload.

    Attributes:
        target: A task type, model or alias.
        version, variant: As pinned, or "".
        contract: The words of the ``semaforo-*`` headers with underscores, for example ``deadline_ms``.
        rows, bytes: Size of the payload.
        shape: Shape key of one row, for example ``image:FP32:64``; "" takes the task's own where it is fixed.
        stream, needs, prompt_tokens, max_tokens: As in a chat.
    """

    target: str
    version: str = ""
    variant: str = ""
    contract: dict[str, Any] = {}
    rows: int = 1
    bytes: int = 0
    shape: str = ""
    stream: bool = False
    needs: tuple[str, ...] = ()
    prompt_tokens: int = 0
    max_tokens: int = 0


class Admin:
    """The handlers."""

    def __init__(self, engine: Engine, inference: Inference) -> None:
        self._engine = engine
        self._inference = inference

    async def fleet(self, request: HttpRequest) -> Response:
        """Show everything that may be served, and what serves it now."""
        catalog = self._engine.catalog
        replicas: dict[str, list[Any]] = {}
        for replica in self._engine.replicas():
            replicas.setdefault(replica.variant, []).append(shown(replica))
        models: dict[str, dict[str, Any]] = {}
        for variant in catalog.variants.values():
            model = models.setdefault(
                variant.model,
                {
                    "name": variant.model,
                    "task": variant.task,
                    "in_service": catalog.in_service.get(variant.model, variant.version),
                    "versions": {},
                },
            )
            version = model["versions"].setdefault(variant.version, [])
            version.append(self._variant(variant) | {"replicas": replicas.get(variant.id, [])})
        return json_response(
            {
                "tasks": [shown(task) for task in catalog.tasks.values()],
                "aliases": catalog.aliases,
                "models": [
                    model
                    | {
                        "versions": [
                            {"version": v, "variants": found} for v, found in model["versions"].items()
                        ]
                    }
                    for model in models.values()
                ],
            }
        )

    async def decisions(self, request: HttpRequest) -> Response:
        """List the latest decisions."""
        text = request.query().get("limit", "20")
        if not text.isdigit() or not 1 <= int(text) <= 1000:
            raise InvalidRequest(f"limit is '{text}'; it takes 1 to 1000")
        found = self._engine.ring.recent(int(text))
        return json_response({"decisions": [_explained(explanation) for explanation in found]})

    async def decision(self, request: HttpRequest) -> Response:
        """Explain one request."""
        wanted = request.params["id"]
        found = self._engine.explanation(wanted)
        if found is None:
            size = self._engine.ring.size
            raise NotFound(
                f"no decision is kept under '{wanted}': the last {size} since the start are, so it was never "
                "made, is older, or several ids begin so"
            )
        return json_response(_explained(found) | {"text": render(found)})

    async def decide(self, request: HttpRequest) -> Response:
        """Decide without running."""
        body = await request.body()
        try:
            question = msgspec.json.decode(body or b"{}", type=Question)
        except NOT_JSON as error:
            raise InvalidRequest(f"not a question for a decision: {told(error)}") from None
        if question.rows < 1 or question.bytes < 0:
            raise InvalidRequest("rows is 1 or more, bytes 0 or more")
        if is_auto(self._engine.catalog, question.target):
            question = msgspec.structs.replace(question, target=self._fitting(question.shape))
        task = self._engine.catalog.task_of(question.target)
        shape = question.shape
        if not shape and task.kind == "tensor":
            shape = self._inference.codec(question.target, question.version).shape
        else:
            _check_shape(shape)
        contract = question.contract
        asked = self._inference.ask(request, {f"semaforo_{name}": value for name, value in contract.items()})
        decided = self._engine.decide(
            Request(
                request.id,
                question.target,
                question.version,
                question.variant,
                asked.contract,
                Ref(question.rows, question.bytes, shape),
                question.stream or task.kind == "chat",
                question.needs,
                question.prompt_tokens,
                question.max_tokens,
                asked.session,
            )
        )
        return json_response(shown(decided))

    def _fitting(self, shape: str) -> str:
        """Return the only task that takes tensors of a shape; there is no content by which to choose.

        Raises:
            InvalidRequest: None takes them, or several do.
        """
        _check_shape(shape)
        given = {name: Given(dtype, dims) for name, dtype, dims in parse_shape_key(shape)}
        return infer(None, candidates(self._engine.catalog, given), Signals()).task

    async def scale(self, request: HttpRequest) -> Response:
        """Set the number of a variant's replicas."""
        params = request.params
        variant = params.get("id") or f"{params['model']}/{params['version']}/{params['variant']}"
        body = await request.json()
        replicas = body.get("replicas") if isinstance(body, dict) else None
        if isinstance(replicas, bool) or not isinstance(replicas, int) or not 0 <= replicas <= _MOST_REPLICAS:
            raise InvalidRequest(f'the body is {{"replicas": n}} with n from 0 to {_MOST_REPLICAS}')
        await self._engine.operations.scale(variant, replicas)
        found = [shown(r) for r in self._engine.replicas() if r.variant == variant]
        return json_response({"variant": variant, "replicas": found})

    async def drain(self, request: HttpRequest) -> Response:
        """Drain one replica."""
        replica = request.params["id"]
        await self._engine.operations.drain(replica)
        return json_response({"replica": replica, "state": "draining"}, 202)

    def _variant(self, variant: Variant) -> dict[str, Any]:
        catalog = self._engine.catalog
        template = catalog.templates.get(variant.id)
        scaling = catalog.scaling.get(variant.id)
        about: dict[str, Any] = shown(variant)
        if template is not None:
            about |= {"runtime": template.runtime, "device": template.device, "isolation": template.isolation}
        if scaling is not None:
            about["scaling"] = {"least": scaling.least, "most": scaling.most}
        return about


def routes(engine: Engine, inference: Inference, v2: V2) -> list[Route]:
    """Return all routes of the admin API."""
    admin = Admin(engine, inference)
    at = "/semaforo/v1"
    return [
        Route("GET", f"{at}/fleet", "read", admin.fleet),
        *figures.routes(engine),
        *feedback.routes(engine),
        *frontier.routes(engine),
        *routers.routes(engine),
        Route("GET", f"{at}/decisions", "read", admin.decisions),
        Route("GET", f"{at}/decisions/{{id}}", "read", admin.decision),
        Route("POST", f"{at}/decide", "infer", admin.decide),
        Route("POST", f"{at}/models/{{model}}/load", "operate", v2.load),
        Route("POST", f"{at}/models/{{model}}/unload", "operate", v2.unload),
        Route("POST", f"{at}/variants/{{id}}/scale", "operate", admin.scale),
        Route(
            "POST",
            f"{at}/models/{{model}}/versions/{{version}}/variants/{{variant}}/scale",
            "operate",
            admin.scale,
        ),
        Route("POST", f"{at}/replicas/{{id}}/drain", "operate", admin.drain),
    ]


def _explained(explanation: Explanation) -> dict[str, Any]:
    about: dict[str, Any] = shown(explanation)
    return {"id": explanation.request.id, **about}


def _check_shape(shape: str) -> None:
    try:
        parse_shape_key(shape)
    except ValueError:
        raise InvalidRequest(f"shape '{shape}' is no shape key; one is like image:FP32:64") from None
