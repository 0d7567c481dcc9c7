"""The answer cache of a fleet: whether a request was answered before, to the letter.

Rules this module keeps:

1. A tenant is never given another tenant's answer.
2. A kept answer counts only where the variant that gave it meets the contract: its quality, the data it may see.
3. What is sampled is kept only where the operator says so: a chat without temperature 0 and without a seed.
4. Of a variant that is gone or another one than it was, nothing is kept.
5. What a caller says was bad is not given again; nor is anything to a request that asks for a fresh answer.
6. What is kept is nobody's to change: arrays are copied when they are kept, and again when they are given.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from typing import Any

import msgspec

from semaforo.catalog.state import Catalog
from semaforo.core.history import same
from semaforo.core.state import State
from semaforo.entities import Request, TaskType
from semaforo.errors import NotFound
from semaforo.observe.explain import CACHE
from semaforo.routing.cache import Cache
from semaforo.wire.payload import Array, Chat, ChatChunk, Payload, Tensors

REPLICA = CACHE

SEMANTIC = "cache/semantic"
"""The same where the answer was given to another request, which means the same."""

NO_MATTER = ("stream", "stream_options", "user", "metadata", "store", "service_tier", "model")
_CHUNK_BYTES = 64

Said = Tensors | tuple[ChatChunk, ...]


class Kept(msgspec.Struct, frozen=True):
    """An answer that counts for a request, as its caller may have it.

    Attributes:
        said: A copy.
        variant: Id of the variant that said it.
    """

    said: Said
    variant: str


class Answers:
    """What was answered before, by task.

    Args:
        state: The dispatcher's.
        most_given: Requests whose answers are remembered as kept, so that what is bad can be dropped.

    Attributes:
        dropped: Told of the task and key of each answer that goes.
    """

    def __init__(self, state: State, most_given: int = 4096) -> None:
        self._state = state
        self._caches: dict[str, Cache[Said]] = {}
        self._asked: dict[str, tuple[str, bytes]] = {}
        self._given: OrderedDict[str, tuple[str, bytes]] = OrderedDict()
        self._most_given = most_given
        self._any = False
        self.dropped: Callable[[str, bytes], None] = lambda task, key: None

    def caches(self) -> dict[str, Cache[Said]]:
        """Return the cache of each task that has one."""
        return self._caches

    def found(self, request: Request, payload: Payload, now: float) -> Kept | None:
        """Return what was answered to this request before, and by whom; else remember to keep what will be."""
        task = self.task_of(request) if self._any else None
        if task is None or not task.cache.bytes or not cacheable(request, payload, task):
            return None
        cache = self._caches.get(task.name)
        if cache is None:
            gone = partial(self._gone, task.name)
            cache = self._caches[task.name] = Cache(task.cache.bytes, task.cache.keep_s, gone)
        key = key_of(request, payload)
        kept = cache.get(key, now)
        if kept is not None and self._meets(kept.variant, request):
            self.gave(request.id, task.name, key)
            return Kept(_copied(kept.answer), kept.variant)
        self._asked[request.id] = (task.name, key)
        return None

    def like(self, task: str, key: bytes, request: Request, now: float) -> Kept | None:
        """Return the answer under a key where it is good for a request, without counting it."""
        cache = self._caches.get(task)
        kept = cache.peek(key, now) if cache is not None else None
        if kept is None or not self._meets(kept.variant, request):
            return None
        return Kept(_copied(kept.answer), kept.variant)

    def wanted(self, request_id: str) -> bool:
        """Tell whether the answer to a request is to be kept."""
        return request_id in self._asked

    def let_be(self, request_id: str) -> None:
        """Keep no answer to a request after all."""
        self._asked.pop(request_id, None)

    def answered(
        self, request_id: str, said: Said | None, variant: str, now: float, more: int = 0
    ) -> tuple[str, bytes] | None:
        """Keep an answer, or forget that one was asked for (None); return its task and key where it is kept.

        Args:
            request_id: Whose.
            said: The answer.
            variant: Who gave it.
            now: Monotonic seconds.
            more: Bytes that are kept with it elsewhere.
        """
        asked = self._asked.pop(request_id, None)
        if asked is None or said is None:
            return None
        if isinstance(said, Tensors) and said.without:
            return None
        task, key = asked
        cache = self._caches[task]
        cache.put(key, _copied(said), variant, _bytes(said) + more, now)
        if key not in cache:
            return None
        self.gave(request_id, task, key)
        return asked

    def gave(self, request_id: str, task: str, key: bytes) -> None:
        """Note that a request was given the answer under a key."""
        self._given[request_id] = (task, key)
        while len(self._given) > self._most_given:
            self._given.popitem(last=False)

    def bad(self, request_id: str) -> None:
        """Drop the answer that a request was given, where it is kept."""
        given = self._given.pop(request_id, None)
        cache = self._caches.get(given[0]) if given is not None else None
        if given is not None and cache is not None:
            cache.drop(given[1])

    def changed(self, before: Catalog, after: Catalog) -> None:
        """Drop what is out of date in another catalog."""
        self._any = any(task.cache.bytes for task in after.tasks.values())
        gone = {name for name in before.variants if not same(name, before, after)}
        for name, cache in list(self._caches.items()):
            if after.tasks.get(name) != before.tasks.get(name):
                del self._caches[name]
            else:
                cache.forget(gone)
        self._asked = {rid: asked for rid, asked in self._asked.items() if asked[0] in self._caches}

    def task_of(self, request: Request) -> TaskType | None:
        """Return the task of a request; None where it names nothing."""
        try:
            return self._state.catalog.task_of(request.target)
        except NotFound:
            return None

    def _gone(self, task: str, key: bytes) -> None:
        self.dropped(task, key)

    def _meets(self, variant_id: str, request: Request) -> bool:
        variant = self._state.catalog.variants.get(variant_id)
        if variant is None or variant.sees < request.contract.privacy:
            return False
        return (self._state.believed(variant) or 0.0) >= request.contract.min_quality


def cacheable(request: Request, payload: Payload, task: TaskType) -> bool:
    """Tell whether an answer to a request may be another one's answer too."""
    if request.contract.fresh or not request.idempotent:
        return False
    if request.step is not None and request.step.name == "shadow":
        return False
    if isinstance(payload, Chat):
        body = payload.body
        certain = body.get("temperature") == 0 or body.get("seed") is not None
        return (certain or task.cache.sampled) and body.get("n") in (None, 1)
    # A session may remember: the same request is another one the next time.
    return not request.affinity


def key_of(request: Request, payload: Payload) -> bytes:
    """Return what tells a request from all others: who asks, what for, and every bit of what goes in."""
    digest = sha256()
    who = (request.contract.tenant, request.target, request.version, request.variant, request.affinity)
    digest.update(msgspec.msgpack.encode(who))
    if isinstance(payload, Chat):
        digest.update(
            msgspec.json.encode({k: v for k, v in payload.body.items() if k not in NO_MATTER}, order="sorted")
        )
        return digest.digest()
    for name in sorted(payload.arrays):
        array = payload.arrays[name]
        digest.update(msgspec.msgpack.encode((name, array.dtype.str, array.shape)))
        digest.update(content(array))
    digest.update(msgspec.json.encode((payload.parameters, payload.outputs), enc_hook=repr))
    return digest.digest()


def content(array: Array) -> bytes:
    """Return every bit of an array."""
    if array.dtype != object:
        return array.tobytes()
    return msgspec.msgpack.encode(
        [item if isinstance(item, (bytes, str)) else repr(item) for item in array.flat]
    )


def _copied(said: Said) -> Said:
    if not isinstance(said, Tensors):
        return said
    return msgspec.structs.replace(said, arrays={name: array.copy() for name, array in said.arrays.items()})


def _bytes(said: Said) -> int:
    if isinstance(said, Tensors):
        return 256 + sum(
            a.nbytes if a.dtype != object else sum(_CHUNK_BYTES + len(item) for item in a.flat)
            for a in said.arrays.values()
        )
    return 256 + sum(_CHUNK_BYTES + len(_text(chunk.delta)) for chunk in said)


def _text(delta: dict[str, Any]) -> bytes:
    return msgspec.json.encode(delta)
