"""The routers of one task as they serve: the one in service, the candidate beside it, and what came of both.

Rules this module keeps:

1. Which of the two decides on a request follows from its id and the candidate alone, with the probability stated.
2. A router that fails to predict as a candidate is rolled back at once; requests never suffer from it.
3. What changes does so between two requests: those under way end as they began.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256

import msgspec

from semaforo.core.effects import Score
from semaforo.core.events import Scored
from semaforo.errors import Conflict
from semaforo.features.signals import Signals
from semaforo.repository.routers import Routed
from semaforo.routing.embedded import Embedded
from semaforo.routing.rollout import Loaded, Rollout
from semaforo.routing.scorer import Scorer
from semaforo.routing.tryout import Tryout, tried

Asked = list[tuple[Score, Signals]]
Predicted = tuple[dict[str, float], float]
Gains = Callable[[Scorer, str, Asked], list[Predicted]]

_MOST_ENDED = 20
_2_64 = 2.0**64

log = logging.getLogger("semaforo.routing")


class Ended(msgspec.Struct, frozen=True):
    """A router that came or went.

    Attributes:
        what: ``promoted`` or ``rolled back``.
        name, digest: Of the router.
        why: In words.
        at: When, as ISO 8601.
    """

    what: str
    name: str
    digest: str
    why: str
    at: str


class Course:
    """The routers of one task.

    Attributes:
        routed: As the fleet file states them.
        rollout: As they are now.
        tryout: What came of the candidate so far; None without one.
        before: The router that was in service before this one, where that is known.
        ended: What came and went, the latest last.
        changes: Counts what came and went.
    """

    def __init__(self, routed: Routed) -> None:
        self.routed = routed
        self.before: Loaded | None = None
        self.ended: list[Ended] = []
        self.changes = 0
        self._scorers: dict[str, Scorer] = {}
        self.rollout = routed.rollout
        self.tryout: Tryout | None = None
        self.take(routed.rollout)

    def take(self, rollout: Rollout, tryout: Tryout | None = None) -> None:
        """Serve by another rollout from now on; with the `tryout` of its candidate, or one that begins."""
        loaded = [rollout.service] + ([rollout.candidate] if rollout.candidate is not None else [])
        self._scorers = {
            one.digest: self._scorers.get(one.digest) or Scorer(one.router.predictor) for one in loaded
        }
        self.rollout = rollout
        self.tryout = (tryout or tried(rollout.margin)) if rollout.candidate is not None else None

    def ready(self, loaded: Loaded) -> Scorer:
        """Make ready to predict; may take some time, and be done in another thread."""
        return Scorer(loaded.router.predictor)

    def keep(self, loaded: Loaded, scorer: Scorer) -> None:
        """Keep what `ready` has made for when its router is taken."""
        self._scorers[loaded.digest] = scorer

    # --- predicting ------------------------------------------------------------------------------------

    def drawn(self, request_id: str) -> bool:
        """Tell whether the candidate decides on a request."""
        candidate, share = self.rollout.candidate, self.rollout.share
        if candidate is None or share <= 0.0:
            return False
        mark = sha256(f"{candidate.digest} {request_id}".encode()).digest()[:8]
        return int.from_bytes(mark) < share * _2_64

    def score(self, asked: Asked, gains: Gains) -> list[Scored]:
        """Predict for requests, by the router that decides on each, and by the other where it is to look too."""
        arms = [self.drawn(effect.request) for effect, _ in asked]
        rollout = self.rollout
        beside: dict[str, Predicted] = {}
        if rollout.candidate is not None and (rollout.shadow or any(arms)):
            looks = [one for one, arm in zip(asked, arms, strict=True) if arm or rollout.shadow]
            try:
                beside = self._predicted(rollout.candidate, looks, gains)
            except Exception as error:
                log.exception("the candidate %s of '%s' failed", rollout.candidate.name, rollout.task)
                self.roll_back(f"it could not predict: {error}")
                arms, rollout = [False] * len(asked), self.rollout
        looks = [one for one, arm in zip(asked, arms, strict=True) if not arm or rollout.shadow]
        usual = self._predicted(rollout.service, looks, gains)
        return [
            self._scored(rollout, effect.request, arm, usual, beside)
            for (effect, _), arm in zip(asked, arms, strict=True)
        ]

    def _predicted(self, loaded: Loaded, asked: Asked, gains: Gains) -> dict[str, Predicted]:
        if not asked:
            return {}
        level = loaded.router.predictor.embedded
        if level is not None:
            asked = [(effect, _readable(signals, level)) for effect, signals in asked]
        found = gains(self._scorers[loaded.digest], self.rollout.task, asked)
        return {effect.request: one for (effect, _), one in zip(asked, found, strict=True)}

    @staticmethod
    def _scored(
        rollout: Rollout,
        request: str,
        arm: bool,
        usual: dict[str, Predicted],
        beside: dict[str, Predicted],
    ) -> Scored:
        service, candidate = rollout.service.name, rollout.candidate.name if rollout.candidate else ""
        names, found = (
            ([candidate, service], [beside, usual]) if arm else ([service, candidate], [usual, beside])
        )
        gain, trust = found[0][request]
        if candidate and request in found[1]:
            beside_gain = found[1][request][0]
            return Scored(request, gain, trust, router=names[0], other=names[1], beside=beside_gain)
        return Scored(request, gain, trust, router=names[0])

    # --- what becomes of the candidate -----------------------------------------------------------------

    def act(self) -> None:
        """Do what follows from what was shown."""
        if self.tryout is None:
            return
        due = self.tryout.due(promote=self.rollout.promote)
        low, high = self.tryout.score.interval()
        why = f"shown to be {self.tryout.verdict}: its scores are {low:+.2f} to {high:+.2f} ahead"
        if due == "roll back":
            self.roll_back(why)
        elif due == "promote":
            self.promote(why)

    def promote(self, why: str) -> None:
        """Put the candidate in service.

        Raises:
            Conflict: There is none.
        """
        candidate = self.rollout.candidate
        if candidate is None:
            raise Conflict(f"'{self.rollout.task}' has no candidate to promote: set one first")
        self.before = self.rollout.service
        self.take(msgspec.structs.replace(self.rollout, service=candidate, candidate=None))
        self._note("promoted", candidate, why)

    def roll_back(self, why: str) -> None:
        """Drop the candidate; without one, put the router back in service that was before this one.

        Raises:
            Conflict: There is neither.
        """
        candidate, service = self.rollout.candidate, self.rollout.service
        if candidate is not None:
            self.take(msgspec.structs.replace(self.rollout, candidate=None))
            self._note("rolled back", candidate, why)
        elif self.before is not None:
            self.take(msgspec.structs.replace(self.rollout, service=self.before))
            self.before = None
            self._note("rolled back", service, why)
        else:
            raise Conflict(f"'{self.rollout.task}' has no candidate, and no router before {service.name}")

    def _note(self, what: str, loaded: Loaded, why: str) -> None:
        at = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
        self.ended = [*self.ended, Ended(what, loaded.name, loaded.digest, why, at)][-_MOST_ENDED:]
        self.changes += 1
        say = log.warning if what == "rolled back" else log.info
        say("router %s of '%s' was %s: %s", loaded.name, self.rollout.task, what, why)


def _readable(signals: Signals, level: Embedded) -> Signals:
    """Return signals without an embedding that a router was not trained to read."""
    vector = signals.embedding
    if vector is None or level.fits(signals.space, vector):
        return signals
    return msgspec.structs.replace(signals, embedding=None)
