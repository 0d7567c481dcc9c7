"""What a client asks for beside its data: the contract, and the operator's preference among what meets it."""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

import msgspec


class Priority(IntEnum):
    """Classes of priority; a lower number goes first. V2's integers are these plus one, its 0 is NORMAL."""

    CRITICAL = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3


class Privacy(IntEnum):
    """Classes of data, from harmless to what may not leave the site."""

    PUBLIC = 0
    INTERNAL = 1
    SITE = 2


class Contract(msgspec.Struct, frozen=True, omit_defaults=True):
    """Hard limits of one request. A decision that breaks one is a bug, never a trade-off.

    Attributes:
        priority: Class of service.
        deadline_s: Seconds from arrival within which the answer is of use; None = no deadline.
        min_quality: Least quality (0…1, the task's own metric) of the variant that answers.
        max_cost: Most US dollars this request may cost; None = no limit.
        privacy: Class of the data; a variant that may not see it is ruled out.
        tenant: Who pays; fairness inside a class is between tenants.
        fresh: No answer that was kept will do, nor is this one to be kept.
    """

    priority: Priority = Priority.NORMAL
    deadline_s: float | None = None
    min_quality: float = 0.0
    max_cost: float | None = None
    privacy: Privacy = Privacy.PUBLIC
    tenant: str = ""
    fresh: bool = False


class Preference(msgspec.Struct, frozen=True, omit_defaults=True):
    """The operator's wish among the variants that meet a contract: soft, it gives way under pressure.

    Attributes:
        goal: ``weights`` uses the three weights as they are; ``cost`` takes the cheapest that keeps
            `keep_quality` of the best quality; ``quality`` takes the best that answers `within_s`.
        keep_quality: Share (0…1) of the best eligible quality to keep when minimising cost.
        within_s: Seconds the answer should take when maximising quality; None = no limit.
        at_most: US dollars that a request should cost on average when maximising quality; None = no matter.
        quality, latency, cost: Weights (≥ 0) of the utility.
    """

    goal: Literal["weights", "cost", "quality"] = "weights"
    keep_quality: float = 0.98
    within_s: float | None = None
    at_most: float | None = None
    quality: float = 1.0
    latency: float = 0.2
    cost: float = 0.1


class Exploration(msgspec.Struct, frozen=True, omit_defaults=True):
    """How much a task may explore.

    Attributes:
        share: Share (0…1) of requests that may be answered by another variant than the best one.
        max_loss: Quality that such an answer may be worse, as far as is known.
        shadow: Share (0…1) of requests of which a copy is asked of a variant that is not safe to try.
        by: How what is tried is chosen (`policy.explore`); ``linucb`` and ``thompson`` look at each request.
    """

    share: float = 0.0
    max_loss: float = 0.1
    shadow: float = 0.0
    by: Literal["epsilon", "linucb", "thompson"] = "epsilon"

    @property
    def contextual(self) -> bool:
        """Whether each request is looked at for the sake of learning."""
        return self.by != "epsilon" and (self.share > 0.0 or self.shadow > 0.0)
