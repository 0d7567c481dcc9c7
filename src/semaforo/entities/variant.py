"""A variant of a model, its measured profile and its price."""

from __future__ import annotations

import msgspec

from semaforo.entities.contract import Privacy
from semaforo.entities.tensor import TensorSpec


class BatchProfile(msgspec.Struct, frozen=True, omit_defaults=True, tag="batch"):
    """Service time of one batch: ``base_s + row_s · rows`` seconds on an idle device.

    Attributes:
        base_s: Seconds a batch costs whatever its size.
        row_s: Seconds each row adds.
        p99_s: Measured p99 of a batch of one row, in seconds; 0 = not measured.
        curve: Measured (rows, median seconds), for the report.
    """

    base_s: float
    row_s: float
    p99_s: float = 0.0
    curve: tuple[tuple[int, float], ...] = ()

    def seconds(self, rows: int) -> float:
        """Predict the service time of a batch of `rows`."""
        return self.base_s + self.row_s * rows


class StreamProfile(msgspec.Struct, frozen=True, omit_defaults=True, tag="stream"):
    """Service of a streamed answer, one request per slot.

    Attributes:
        first_s: Seconds to the first token with an empty prompt.
        prompt_token_s: Seconds each prompt token adds to the first token.
        token_s: Seconds for each further token.
        slots: Requests served at once by one replica.
        tokens: Prompt plus output tokens that one replica holds at once; 0 = no limit.
    """

    first_s: float = 0.2
    prompt_token_s: float = 0.0
    token_s: float = 0.02
    slots: int = 4
    tokens: int = 0

    def seconds(self, prompt_tokens: int, output_tokens: float) -> float:
        """Predict the seconds until the last token."""
        return self.first_s + self.prompt_token_s * prompt_tokens + self.token_s * output_tokens


Profile = BatchProfile | StreamProfile


class Cost(msgspec.Struct, frozen=True, omit_defaults=True):
    """Price of using a variant, in US dollars.

    Attributes:
        second: Dollars per device-second (a local model).
        input_token: Dollars per prompt token (an upstream).
        output_token: Dollars per output token (an upstream).
        request: Dollars per request.
    """

    second: float = 0.0
    input_token: float = 0.0
    output_token: float = 0.0
    request: float = 0.0

    @property
    def metered(self) -> bool:
        """Whether idle capacity costs nothing, so that using it is not free."""
        return self.input_token > 0 or self.output_token > 0 or self.request > 0


class Variant(msgspec.Struct, frozen=True, omit_defaults=True):
    """The same function at one cost and quality: what the router chooses among.

    Attributes:
        id: ``model/version/name``, unique in the fleet.
        model: Name of the model.
        version: Version, a string such as ``3`` or ``v10``.
        name: For example ``fp32`` or ``int8``.
        task: Task type it serves.
        quality: 0…1 in the task's metric; None where nobody measured it (then it meets only
            requests that ask for no least quality, and counts as 0.5 in the utility).
        cost: Price.
        profile: Measured service time.
        max_rows: Most rows in one batch; 1 = never batched.
        sees: Highest class of data it may see.
        inputs: What it takes in the task's names; empty = the task's own inputs.
        capabilities: ``tools``, ``vision``, ``schema``, ``audio``, ``completion``.
        context: Most prompt plus output tokens; 0 = no limit.
        kind: ``tensor`` or ``chat``; what it speaks.
        supple: Whether it leaves work out where time is short, so that what it takes at least is what counts.
    """

    id: str
    model: str
    version: str
    name: str
    task: str
    quality: float | None = None
    cost: Cost = Cost()
    profile: Profile = BatchProfile(base_s=0.001, row_s=0.001)
    max_rows: int = 64
    sees: Privacy = Privacy.SITE
    inputs: tuple[TensorSpec, ...] = ()
    capabilities: tuple[str, ...] = ()
    context: int = 0
    kind: str = "tensor"
    supple: bool = False
