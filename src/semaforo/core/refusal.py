"""Saying no: to a request at the door, or to one that was admitted and cannot be kept.

Rules this module keeps:

1. What was admitted is never refused: it is shed, or it expires.
2. Every no says why, and after how long asking again may help; 0 where waiting alone will not.
"""

from __future__ import annotations

from semaforo.core.effects import Considered, Decided, DispatcherEffect, Finish, Release
from semaforo.core.ledger import Ledger
from semaforo.core.state import Job, State
from semaforo.entities import Request
from semaforo.entities.units import unlike


class Refusals:
    """Turns requests away from a `State`; holds nothing of its own."""

    def __init__(self, state: State, ledger: Ledger) -> None:
        self.state = state
        self._ledger = ledger

    def shed(self, victim: Job, now: float, out: list[DispatcherEffect]) -> None:
        """Drop a waiting job to make room for one of a higher class."""
        self._ledger.dequeue(victim)
        self._ledger.finish(
            victim, "shed", now, out, code="shed", retry_after_s=1.0,
            message=f"dropped from the full queue of '{victim.task}' for work of a higher class",
        )  # fmt: skip

    def too_late(
        self, job: Job, considered: tuple[Considered, ...], now: float, out: list[DispatcherEffect],
        *, fresh: bool,
    ) -> None:  # fmt: skip
        """Tell a job that nobody can finish it in time, with the wait that is predicted."""
        slack = job.deadline - now
        soonest = min((c for c in considered if c.predicted_s), key=lambda c: c.predicted_s, default=None)
        queue = self.state.queues.get(job.task)
        ahead = sum(queue.rows[: job.klass + 1]) if queue else 0
        predicted, where = (soonest.predicted_s, soonest.variant) if soonest else (0.0, job.task)
        alone = all(c.ruled_out != "load" for c in considered)
        asked, needed = unlike(slack * 1e3, predicted * 1e3)
        text = (
            f"no replica can finish before the deadline: {asked} ms asked, {needed} ms predicted "
            f"({ahead} rows ahead on {where})"
        )
        outcome = "refused" if fresh else "expired"
        self.turn_away(job, considered, now, out, outcome, text, 0.0 if alone else predicted - slack)

    def no_money(
        self, job: Job, considered: tuple[Considered, ...], now: float, out: list[DispatcherEffect],
        again_s: float, *, fresh: bool,
    ) -> None:  # fmt: skip
        """Tell a job that nothing it can pay is left that could answer it in time."""
        why = next(c.detail for c in considered if c.ruled_out == "budget")
        text = f"its budget does not allow it: {why}"
        out.append(Decided(job.request.id, job.task, considered, "", "", text, 0, job.moves))
        if fresh:
            self.refuse(job.request, now, out, "budget", text, again_s)
        else:
            self._ledger.finish(job, "failed", now, out, code="budget", message=text, retry_after_s=again_s)

    def turn_away(
        self, job: Job, considered: tuple[Considered, ...], now: float, out: list[DispatcherEffect],
        outcome: str, text: str, retry_after_s: float,
    ) -> None:  # fmt: skip
        """Answer a job that is not placed: refused if it is new, shed or expired if it was admitted."""
        out.append(Decided(job.request.id, job.task, considered, "", "", text, 0, job.moves))
        rid = job.request.id
        if outcome == "refused":
            if rid in self.state.jobs:
                self._forget(job, now)
            self.refuse(job.request, now, out, "refused", text, retry_after_s)
        elif outcome == "shed":
            self._ledger.finish(
                job, "shed", now, out, code="shed", message=text, retry_after_s=max(0.001, retry_after_s)
            )
        else:
            self._ledger.finish(job, "expired", now, out, code="expired", message=text)

    def _forget(self, job: Job, now: float) -> None:
        del self.state.jobs[job.request.id]
        self._ledger.spending.settle(job, 0.0, now)
        self._disown(job.request)

    def _disown(self, request: Request) -> None:
        step = request.step
        if step is not None and request.id in self.state.children.get(step.parent, ()):
            siblings = self.state.children[step.parent]
            siblings.remove(request.id)
            if not siblings:
                del self.state.children[step.parent]

    def refuse(
        self, request: Request, now: float, out: list[DispatcherEffect], code: str, message: str,
        retry_after_s: float = 0.0,
    ) -> None:  # fmt: skip
        """Answer a request that is not admitted."""
        if request.id not in self.state.jobs:
            self._disown(request)
        out.append(
            Finish(request.id, "refused", code=code, message=message, retry_after_s=max(0.0, retry_after_s))
        )
        if code != "conflict":
            out.append(Release(request.id))
