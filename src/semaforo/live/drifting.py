"""Holds requests against what the models that answer them were measured on.

Rules this module keeps:

1. A request of one row has a feature `drift`: how much of what was seen of it, its words aside, is out of the range
   of what its models were measured on (the nearest of them), or its router trained on where no model has a profile.
2. What comes to a task is held against the profiles of all its variants, whoever answers: what a router sends to
   one is unlike what it sends to another, and that is no drift. Of several rows the first is looked at. It costs a
   hundredth of the loop's time at most: when it would cost more, requests are passed over.
3. That requests have drifted is said once, until they are back.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping

import msgspec

from semaforo.catalog.state import Catalog
from semaforo.features.drift import LEAST, Drift, Recent
from semaforo.features.profile import DRIFT, DataProfile, outside
from semaforo.features.signals import Signals
from semaforo.features.text import text_numbers
from semaforo.live.looking import Looking, Seen
from semaforo.wire.payload import Chat, Payload, Tensors

SHARE = 0.01
_AGAIN_S = 1.0
_EVERY = LEAST // 2

log = logging.getLogger("semaforo.features")

Then = Callable[[Seen], None]
_ByName = dict[str, DataProfile]


class Drifting:
    """The drift of a fleet's requests.

    Args:
        looking: Looks at payloads.
        profiles: By id of a variant, what it was measured on.
        of_router: By task, what its router was trained on, or None.
        catalog: Returns the catalog.
        clock: Returns seconds.
    """

    def __init__(
        self,
        looking: Looking,
        profiles: Mapping[str, DataProfile],
        of_router: Callable[[str], DataProfile | None],
        catalog: Callable[[], Catalog],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._looking = looking
        self._profiles = profiles
        self._of_router = of_router
        self._catalog = catalog
        self._clock = clock
        self._recent: dict[int, Recent] = {}
        self._drifted: set[int] = set()
        self._due = 0.0
        self._known: tuple[Catalog, _ByName, dict[str, list[DataProfile]]] | None = None

    # --- a request that arrives ------------------------------------------------------------------------

    def look(self, task: str, payload: Payload | None, then: Then) -> Seen | None:
        """Look at a request as `Looking.look` does, and say how far it is from what is usual."""
        profiles = self._of_task(task)
        if not profiles or (isinstance(payload, Tensors) and payload.rows != 1):
            return self._looking.look(task, payload, then)

        def more(seen: Seen) -> Seen:
            numbers = seen.signals.numbers
            if not seen.whole or not numbers:
                return seen
            far = min(outside(profile, numbers) for profile in profiles)
            signals = msgspec.structs.replace(seen.signals, numbers={**numbers, DRIFT: far})
            return msgspec.structs.replace(seen, signals=signals)

        found = self._looking.look(task, payload, lambda seen: then(more(seen)))
        return found if found is None else more(found)

    # --- a request that was answered -------------------------------------------------------------------

    def answered(self, variant: str, payload: Payload | None) -> None:
        """Hold a request against what the variants of its task were measured on, once its answer is out."""
        now = self._clock()
        if now < self._due or payload is None:
            return
        about = self._catalog().variants.get(variant)
        profiles = self._of_task(about.task) if about is not None else []
        if about is None or not profiles:
            return
        # Until it is known what this one takes, no other is looked at.
        self._due = math.inf
        asyncio.get_running_loop().call_soon(self._hold, about.task, payload, profiles)

    def _hold(self, task: str, payload: Payload, profiles: list[DataProfile]) -> None:
        begun = self._clock()

        def seen(found: Seen) -> None:
            try:
                numbers = numbers_of(found.signals) if found.whole else {}
                for profile in profiles if numbers else ():
                    self._add(task, profile, numbers)
            finally:
                now = self._clock()
                self._due = now + (now - begun) / SHARE

        try:
            found = self._looking.look(task, first_row(payload), seen, patient=True)
            if found is not None:
                seen(found)
        except Exception:
            log.exception(
                "a request of '%s' could not be held against what its models were measured on", task
            )
            self._due = begun + _AGAIN_S

    def _add(self, task: str, profile: DataProfile, numbers: Mapping[str, float]) -> None:
        key = id(profile)
        recent = self._recent.get(key)
        if recent is None or recent.profile is not profile:
            recent = self._recent[key] = Recent(profile)
        recent.add(numbers)
        if recent.requests % _EVERY:
            return
        drift = recent.drift()
        if drift is None or drift.drifted == (key in self._drifted):
            return
        if drift.drifted:
            self._drifted.add(key)
            most = ", ".join(f"{name} {index:.2f}" for name, index in list(drift.features.items())[:3])
            log.warning(
                "the requests of '%s' have drifted from what its models were measured on: %s", task, most
            )
        else:
            self._drifted.discard(key)
            log.warning("the requests of '%s' are like what its models were measured on again", task)

    def drifts(self) -> dict[str, Drift]:
        """Return by variant how far the requests of its task have drifted from what it was measured on.

        Variants without a profile, and those of whose requests too little is known, are left out.
        """
        found: dict[str, Drift] = {}
        for variant in self._catalog().variants.values():
            profile = self._of_variant(variant.id, variant.task)
            recent = self._recent.get(id(profile))
            drift = recent.drift() if recent is not None and recent.profile is profile else None
            if drift is not None:
                found[variant.id] = drift
        return found

    # --- profiles --------------------------------------------------------------------------------------

    def _of_variant(self, variant: str, task: str) -> DataProfile | None:
        return self._measured()[0].get(variant) or self._of_router(task)

    def _of_task(self, task: str) -> list[DataProfile]:
        """Return the profiles of a task's variants, each once."""
        found = self._measured()[1].get(task)
        if found:
            return found
        trained = self._of_router(task)
        return [trained] if trained is not None else []

    def _measured(self) -> tuple[_ByName, dict[str, list[DataProfile]]]:
        """Return the profiles by variant and by task; what was measured on the same rows is the same object."""
        catalog = self._catalog()
        if self._known is None or self._known[0] is not catalog:
            unlike: dict[str, list[DataProfile]] = {}
            found: _ByName = {}
            for variant in catalog.variants.values():
                profile = self._profiles.get(variant.id)
                if profile is not None:
                    of_task = unlike.setdefault(variant.task, [])
                    found[variant.id] = next((one for one in of_task if one == profile), profile)
                    if found[variant.id] is profile:
                        of_task.append(profile)
            self._known = (catalog, found, unlike)
        return self._known[1], self._known[2]


def numbers_of(signals: Signals) -> dict[str, float]:
    """Return all features of a request, those of its text among them."""
    return {**signals.numbers, **text_numbers(signals.text)} if signals.text else dict(signals.numbers)


def first_row(payload: Payload) -> Payload:
    """Return a request with its first row alone."""
    if isinstance(payload, Chat) or payload.rows == 1:
        return payload
    return Tensors({name: array[:1] for name, array in payload.arrays.items()})
