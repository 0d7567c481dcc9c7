"""One replica loaded and ready to run, wherever it lives: a worker, a thread or the event loop."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from semaforo.entities import Profile, ReplicaSpec, Signature, TensorSpec
from semaforo.errors import ArtefactError, RuntimeLoadError, SemaforoError
from semaforo.runtime.adapter import Bridge, plan
from semaforo.runtime.base import AsyncModel, ChatModel, Loaded
from semaforo.runtime.execute import AsyncExecutor, Executor
from semaforo.runtime.profile import measure, measure_async
from semaforo.runtime.registry import runtime

WORKER_PREFIX = "worker."

log = logging.getLogger(__name__)


class Hosted(msgspec.Struct):
    """A loaded replica. Exactly one of `executor`, `awaited` and `chat` is there.

    Attributes:
        executor: Runs batches, blocking.
        awaited: Runs batches, awaited.
        chat: Streams answers.
        profile: What the warm-up measured; None where it could not.
        signature: In the task's terms; None for chats.
        memory_bytes: Bytes the model says it holds.
        slots: Batches or streams at once.
    """

    model: Loaded
    executor: Executor | None = None
    awaited: AsyncExecutor | None = None
    chat: ChatModel | None = None
    profile: Profile | None = None
    signature: Signature | None = None
    memory_bytes: int = 0
    slots: int = 1

    def close(self) -> None:
        """Free the model; what it raises while doing so is logged."""
        try:
            self.model.close()
        except Exception:
            log.exception("closing a model raised an error")


def runtime_options(spec: ReplicaSpec) -> dict[str, Any]:
    """Return the options that are for the runtime, not for its host."""
    return {name: value for name, value in spec.options.items() if not name.startswith(WORKER_PREFIX)}


def verify(source: str, digest: str) -> None:
    """Compare a file with its digest.

    Raises:
        ArtefactError: It differs, or there is no such file.
    """
    path = Path(source)
    if not path.is_file():
        raise ArtefactError(f"{path}: a digest is given for it, and it is no file")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest.removeprefix("sha256:").lower():
        raise ArtefactError(
            f"{path}: its sha256 is {found}, not {digest}: it was changed, or is another file"
        )


def load(spec: ReplicaSpec) -> Hosted:
    """Load and bridge a replica, without running it.

    Raises:
        SemaforoError: What is wrong with its artefact, its options or its adapter.
    """
    if spec.digest:
        verify(spec.source, spec.digest)
    try:
        model = runtime(spec.runtime).load(spec.source, runtime_options(spec), spec.device)
    except SemaforoError:
        raise
    except Exception as error:
        raise RuntimeLoadError(
            f"the runtime '{spec.runtime}' raised {type(error).__name__} on {spec.source}: {error}"
        ) from error
    try:
        return _hosted(spec, model)
    except BaseException:
        model.close()
        raise


def warm(spec: ReplicaSpec, hosted: Hosted) -> None:
    """Warm a blocking model up and measure its profile; does nothing for others.

    Raises:
        RuntimeLoadError: What it returns does not match what is declared.
    """
    if hosted.executor is not None:
        hosted.profile = measure(hosted.executor, spec.max_rows)


async def warm_awaited(spec: ReplicaSpec, hosted: Hosted) -> None:
    """Like `warm`, for a model that is awaited, on the loop that will run it.

    Chats are not measured, nor what is served elsewhere, since running that may cost money.
    """
    if hosted.awaited is not None and not getattr(hosted.model, "elsewhere", False):
        hosted.profile = await measure_async(hosted.awaited, spec.max_rows)


def _hosted(spec: ReplicaSpec, model: Loaded) -> Hosted:
    slots = int(getattr(model, "slots", 0))
    if isinstance(model, ChatModel):
        if spec.outputs:
            raise RuntimeLoadError(
                f"'{spec.source}' streams chats, and the task '{spec.task}' wants tensors: "
                "give it a function that returns arrays, or a task with kind: chat"
            )
        return Hosted(model, chat=model, memory_bytes=model.memory_bytes(), slots=slots or 4)
    bridge = _bridge(spec, model.signature, getattr(model, "rowless", frozenset()))
    want = getattr(model, "want", None)
    if want is not None and bridge.model_outputs:
        want(bridge.model_outputs)
    hosted = Hosted(model, signature=bridge.signature, memory_bytes=model.memory_bytes(), slots=slots or 1)
    batched = model.signature.batched
    if isinstance(model, AsyncModel):
        hosted.awaited = AsyncExecutor(model, bridge, batched=batched)
    else:
        hosted.executor = Executor(model, bridge, batched=batched)
    return hosted


def _bridge(spec: ReplicaSpec, model: Signature, rowless: frozenset[str]) -> Bridge:
    return plan(_specs(spec.inputs), _specs(spec.outputs), model, spec.adapter, rowless=rowless)


def _specs(plain: tuple[Mapping[str, Any], ...]) -> tuple[TensorSpec, ...]:
    return tuple(msgspec.convert(dict(fields), TensorSpec) for fields in plain)
