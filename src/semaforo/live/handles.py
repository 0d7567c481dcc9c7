"""Choosing where a replica lives.

1. What it says: ``inline``, ``thread`` or ``process``.
2. ``auto``, behind a url: on the loop, as `RemoteReplica`.
3. ``auto``, a callable registered in this process: a thread.
4. ``auto``, ONNX: loaded and measured here first; inline where p99 of one row is under 300 µs, and only then.
   What is large, or was measured as too slow before, goes to a process at once.
5. ``auto``, all else: a process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from semaforo.entities import BatchProfile, Profile, ReplicaSpec
from semaforo.live.handle import Handle, Sink, Started
from semaforo.live.replica_inline import InlineReplica, load_inline
from semaforo.live.replica_process import ProcessReplica
from semaforo.live.replica_remote import RemoteReplica
from semaforo.live.replica_thread import ThreadReplica
from semaforo.runtime.host import warm
from semaforo.runtime.python_source import is_registered
from semaforo.wire.payload import Payload
from semaforo.worker.arena import Arena, arena

INLINE_P99_S = 300e-6
"""A batch of one that takes longer is worth a hop to another process."""
_SECOND_LOOKS = 2
_LARGE_BYTES = 128 * 1024 * 1024


def is_remote(spec: ReplicaSpec) -> bool:
    """Tell whether a replica is a model behind a url."""
    return spec.runtime == "openai" or spec.source.startswith(("http://", "https://"))


class HandleFactory:
    """Makes handles, and remembers which models were measured as too slow for the loop."""

    def __init__(self) -> None:
        self._slow: set[tuple[str, str, str]] = set()
        self._memory: Arena | None = None
        self._looked = False

    def memory(self) -> Arena | None:
        """Return what all workers of this process share with it; None where the machine has no such memory."""
        if not self._looked:
            self._memory, self._looked = arena(), True
        return self._memory

    def __call__(self, spec: ReplicaSpec, sink: Sink) -> Handle:
        """Return the handle for a replica; nothing is started yet."""
        if is_remote(spec):
            return RemoteReplica(spec, sink)
        if spec.isolation == "inline":
            return InlineReplica(spec, sink)
        if spec.isolation == "thread" or (spec.isolation == "auto" and is_registered(spec.source)):
            return ThreadReplica(spec, sink)
        measurable = spec.isolation == "auto" and spec.runtime == "onnx" and not spec.python
        if measurable and _key(spec) not in self._slow and not _is_large(spec.source):
            return _Measured(spec, sink, self._slow, self.memory)
        return ProcessReplica(spec, sink, self.memory())


handle_for = HandleFactory()


class _Measured:
    """Becomes an inline replica, or one in a process, by what was measured."""

    def __init__(
        self,
        spec: ReplicaSpec,
        sink: Sink,
        slow: set[tuple[str, str, str]],
        memory: Callable[[], Arena | None],
    ) -> None:
        self._spec = spec
        self._sink = sink
        self._slow = slow
        self._memory = memory
        self._chosen: Handle | None = None
        self.run = self._run_early

    async def start(self) -> Started:
        hosted = await asyncio.to_thread(load_inline, self._spec)
        for _ in range(_SECOND_LOOKS):
            if not _disturbed(hosted.profile):
                break
            await asyncio.to_thread(warm, self._spec, hosted)
        if _short(hosted.profile):
            self._chosen = InlineReplica(self._spec, self._sink, hosted)
        else:
            hosted.close()
            self._slow.add(_key(self._spec))
            self._chosen = ProcessReplica(self._spec, self._sink, self._memory())
        # The engine calls this handle once for each batch: let it reach the chosen one directly.
        self.run = self._chosen.run
        if isinstance(self._chosen, InlineReplica):
            self.hurry = self._chosen.hurry
        return await self._chosen.start()

    def _run_early(self, batch: int, members: Sequence[Payload], rows: int) -> None:
        raise AssertionError("a replica runs batches only after it has started")

    def cancel(self, batch: int) -> None:
        if self._chosen is not None:
            self._chosen.cancel(batch)

    async def stop(self, grace_s: float) -> None:
        if self._chosen is not None:
            await self._chosen.stop(grace_s)


def _short(profile: Profile | None) -> bool:
    return isinstance(profile, BatchProfile) and 0 < profile.p99_s < INLINE_P99_S


def _disturbed(profile: Profile | None) -> bool:
    """Tell whether a typical run is so short that only the machine's other work can explain the tail."""
    return (
        isinstance(profile, BatchProfile) and not _short(profile) and 3 * profile.curve[0][1] < INLINE_P99_S
    )


def _key(spec: ReplicaSpec) -> tuple[str, str, str]:
    return spec.source, spec.device, repr(sorted(spec.options.items(), key=lambda item: item[0]))


def _is_large(source: str) -> bool:
    path = Path(source)
    return path.is_file() and path.stat().st_size > _LARGE_BYTES
