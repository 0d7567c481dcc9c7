"""What the model keeps of requests, replicas and batches, and the contract as it reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from semaforo.catalog.state import Catalog
from semaforo.entities import ReplicaView, Request, StreamProfile, TaskType, Variant
from semaforo.entities.tensor import parse_shape_key

EPS = 1e-9
MAX_WAIT_S = 60.0
MAX_TRIES = 3
AHEAD_MOST_S = 0.005


class Violation(AssertionError):
    """The dispatcher broke a rule; `rule` is its name."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule


def expect(fact: object, rule: str, text: str) -> None:
    """Raise `Violation` unless `fact` holds."""
    if not fact:
        raise Violation(rule, text)


@dataclass
class Asked:
    """One request, as the model knows it."""

    request: Request
    task: TaskType
    arrived: float
    deadline: float
    order: int
    scoring: bool = False
    scored_by: float = inf
    waiting_since: float = inf
    live: set[int] = field(default_factory=set)
    runs: int = 0
    failures: int = 0
    failures_alone: int = 0
    failed_on: str = ""
    alone: bool = False
    started: bool = False
    final: bool = False
    outcome: str = ""
    released: bool = False
    gain: dict[str, float] = field(default_factory=dict)
    looked_at: bool = False

    @property
    def rows(self) -> int:
        return self.request.ref.rows

    @property
    def waiting(self) -> bool:
        return not self.outcome and not self.live and not self.scoring


@dataclass
class Standing:
    """One replica, as the model knows it."""

    view: ReplicaView
    live: set[int] = field(default_factory=set)
    away_until: float = 0.0
    draining: bool = False
    drained: bool = False
    returning: bool = False


@dataclass
class Work:
    """One batch that runs."""

    replica: str
    variant: str
    members: tuple[str, ...]
    rows: int
    started: float
    cancelled: bool = False


def why_not(catalog: Catalog, variant: Variant, request: Request) -> str:
    """Return the hard limit that forbids serving a request by a variant, or ""; read from the contract alone."""
    name = catalog.aliases.get(request.target, request.target)
    if (variant.task if name in catalog.tasks else variant.model) != name:
        return "target"
    if variant.version != (request.version or catalog.in_service.get(variant.model, variant.version)):
        return "version"
    if request.variant and variant.name != request.variant:
        return "variant"
    contract = request.contract
    if request.stream != (variant.kind == "chat"):
        return "modality"
    if contract.privacy > variant.sees:
        return "privacy"
    if (
        contract.min_quality > (-1.0 if variant.quality is None else variant.quality)
        and contract.min_quality > 0
    ):
        return "quality"
    if not set(request.needs) <= set(variant.capabilities):
        return "capability"
    if 0 < variant.context < request.prompt_tokens + request.max_tokens:
        return "context"
    given = {n: (d, s) for n, d, s in parse_shape_key(request.ref.shape)}
    for spec in variant.inputs if given else ():
        if spec.name not in given:
            if not spec.optional:
                return "shape"
        elif given[spec.name][0] != spec.dtype or not spec.accepts(given[spec.name][1]):
            return "shape"
    if contract.max_cost is not None and cost_of(variant, request) > contract.max_cost * (1 + EPS):
        return "cost"
    return ""


def cost_of(variant: Variant, request: Request) -> float:
    """Return the dollars that a request costs by the catalog's profile; of a stream, without its output."""
    price, profile = variant.cost, variant.profile
    tokens = request.prompt_tokens
    seconds = (
        profile.seconds(tokens, 0)
        if isinstance(profile, StreamProfile)
        else profile.seconds(request.ref.rows)
    )
    return price.second * seconds + price.input_token * tokens + price.request
