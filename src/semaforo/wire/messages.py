"""What gateway and worker say to each other; `semaforo.wire.frames` turns it into bytes and back."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from semaforo.entities import Profile, ReplicaSpec, Signature
from semaforo.wire.block import Block, Outcome
from semaforo.wire.payload import ChatChunk


class Hello(msgspec.Struct, array_like=True, frozen=True):
    """A worker's first word."""

    semaforo: str
    python: str
    pid: int


class Load(msgspec.Struct, array_like=True, frozen=True):
    """Load this replica, warm it up, and say `Loaded` or `LoadFailed`."""

    spec: ReplicaSpec


class Loaded(msgspec.Struct, array_like=True, frozen=True):
    """A replica is warm. Fields are those of `live.handle.Started`; `shares`: it takes arrays in shared memory."""

    profile: Profile | None
    signature: Signature | None
    memory_bytes: int
    slots: int
    shares: bool = False


class LoadFailed(msgspec.Struct, array_like=True, frozen=True):
    """A replica could not be loaded."""

    code: str
    message: str


class RunChat(msgspec.Struct, array_like=True, frozen=True):
    """Begin one stream; `body` is the OpenAI request."""

    batch: int
    body: dict[str, Any]


class Failed(msgspec.Struct, array_like=True, frozen=True):
    """A batch or stream ended badly as a whole; the kinds are those of `core.events.BatchFailed`."""

    batch: int
    kind: Literal["error", "invalid", "cancelled", "upstream"]
    message: str
    retry_after_s: float = 0.0


class Busy(msgspec.Struct, array_like=True, frozen=True):
    """A batch was refused; nothing was run."""

    batch: int
    retry_after_s: float


class Chunk(msgspec.Struct, array_like=True, frozen=True):
    """One chunk of a stream."""

    batch: int
    chunk: ChatChunk


class StreamDone(msgspec.Struct, array_like=True, frozen=True):
    """A stream ended well."""

    batch: int
    service_s: float
    prompt_tokens: int
    output_tokens: int


class Limits(msgspec.Struct, array_like=True, frozen=True):
    """What an upstream said of its limits; the fields are those of `core.events.Limits`."""

    limits: dict[str, Any]


class Cancel(msgspec.Struct, array_like=True, frozen=True):
    """Stop a batch if possible; its end is still told."""

    batch: int


class Ping(msgspec.Struct, array_like=True, frozen=True):
    """Are you there?"""

    number: int


class Pong(msgspec.Struct, array_like=True, frozen=True):
    """Alive, and this far: batches begun and ended since the start, and seconds in the oldest open one."""

    number: int
    begun: int
    ended: int
    age_s: float


class Stop(msgspec.Struct, array_like=True, frozen=True):
    """End what is open, then exit."""


class Freed(msgspec.Struct, array_like=True, frozen=True):
    """Nobody in the worker reads these places of shared memory any more; each counts for one time it was given."""

    places: list[int]


class Run(msgspec.Struct, frozen=True):
    """Run these blocks, in order, as one batch; `grant`: place and bytes that the answer may be written to."""

    batch: int
    blocks: list[Block]
    grant: tuple[int, int] | None = None


class Done(msgspec.Struct, frozen=True):
    """A batch ended: the outcomes, in the order of its members."""

    batch: int
    service_s: float
    outcomes: list[Outcome]


Plain = (
    Hello | Load | Loaded | LoadFailed | RunChat | Failed | Busy | Chunk | StreamDone | Limits | Cancel | Ping
    | Pong | Stop | Freed
)  # fmt: skip
Message = Plain | Run | Done
