"""A candidate router, tried beside the one in service: what came of both, and what follows from it.

Scores decide. What answers cost and take is compared as well, as x / (x + s) with s the first value that was seen:
that is within 0…1, whatever x is, and grows with it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from semaforo.policy.comparison import Comparison, Verdict, begun

Relation = Literal["less", "more", "cannot tell yet"]
Due = Literal["", "promote", "roll back"]


class Side(msgspec.Struct):
    """What came of the requests that one router decided.

    Attributes:
        answers, failed: How they ended.
        cost: US dollars, in all.
        seconds: From arrival to answer, in all.
    """

    answers: int = 0
    failed: int = 0
    cost: float = 0.0
    seconds: float = 0.0


class Scaled(msgspec.Struct):
    """A comparison of values that are 0 or more.

    Attributes:
        comparison: Of x / (x + scale).
        scale: The first value above 0.
    """

    comparison: Comparison
    scale: float = 0.0

    def add(self, value: float, by_candidate: bool, share: float, apart: bool) -> None:
        """Take in what one answer cost or took."""
        self.scale = self.scale or max(0.0, value)
        part = value / (value + self.scale) if value > 0.0 else 0.0
        self.comparison.add(part, by_candidate, share, apart=apart)

    @property
    def relation(self) -> Relation:
        """Whether the candidate is shown to take less or more."""
        verdict = self.comparison.verdict
        return "less" if verdict == "worse" else "more" if verdict == "better" else "cannot tell yet"


class Tryout(msgspec.Struct):
    """How a candidate does; `tried` makes one.

    Attributes:
        score: Its scores against those of the router in service.
        cost, latency: What its answers cost and take against that.
        candidate, service: What came of what each of the two decided.
        seen: Requests that both looked at.
        apart: Those of them for which they would have picked different variants.
    """

    score: Comparison
    cost: Scaled
    latency: Scaled
    candidate: Side = msgspec.field(default_factory=Side)
    service: Side = msgspec.field(default_factory=Side)
    seen: int = 0
    apart: int = 0

    def finished(
        self, done: bool, cost: float, seconds: float, by_candidate: bool, share: float, apart: bool
    ) -> None:
        """Take in how a request ended; `by_candidate`, `share` and `apart` as for `Comparison.add`."""
        side = self.candidate if by_candidate else self.service
        if not done:
            side.failed += 1
            return
        side.answers += 1
        side.cost += cost
        side.seconds += seconds
        if share > 0.0:
            self.cost.add(cost, by_candidate, share, apart)
            self.latency.add(seconds, by_candidate, share, apart)

    @property
    def verdict(self) -> Verdict:
        """What the scores have shown."""
        return self.score.verdict

    def due(self, *, promote: bool) -> Due:
        """Return what follows: what is worse goes, and with `promote` what is good enough takes over.

        Good enough is what is better, or what is not worse and has not been shown to cost more.
        """
        verdict = self.verdict
        if verdict == "worse":
            return "roll back"
        fine = verdict == "better" or (verdict == "not worse" and self.cost.relation != "more")
        return "promote" if promote and fine else ""


def tried(margin: float) -> Tryout:
    """Return a tryout that has seen nothing; `margin` is what the candidate may be behind."""
    cost, latency = (Scaled(begun(0.0, fine=False)) for _ in range(2))
    return Tryout(begun(margin), cost, latency)
