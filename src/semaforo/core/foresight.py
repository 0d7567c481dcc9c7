"""What would be decided, found out without deciding."""

from __future__ import annotations

from collections.abc import Mapping

from semaforo.core.arrival import Door
from semaforo.core.effects import Decided, Spoke
from semaforo.core.events import Scored
from semaforo.core.plan import Planner
from semaforo.core.state import Job
from semaforo.entities import Request
from semaforo.errors import NotFound


class Foresight:
    """Looks at requests as a `Door` would."""

    def __init__(self, planner: Planner, door: Door) -> None:
        self._planner = planner
        self._door = door

    def decide(self, request: Request, now: float) -> Decided:
        """Return the decision a request would meet now, without changing anything.

        Raises:
            NotFound: The target does not exist.
        """
        plan = self._planner.make(request, with_lane=False)
        job = self._door.job(request, plan, now, seq=0)
        if why := self._door.unservable(plan, request, now):
            return Decided(request.id, job.task, plan.ruled_out, reason=why[1])
        considered, run, wait, _ = self._door.consider(job, plan, now)
        pick = run or wait
        return Decided(
            request.id, job.task, considered, pick.id if pick else "",
            pick.book.idle[0][2] if run is not None and pick else "",
            "best score" if run else "waits" if wait else "no replica can finish before the deadline",
        )  # fmt: skip

    def spoke(self, job: Job, event: Scored, now: float) -> Spoke:
        """Return who predicted for a job, and where two routers did, what each would pick now.

        What was learned from requests like it counts for both.
        """
        if not event.other:
            return Spoke(event.router)
        picks = [self._picked(job, gain, now) for gain in (event.gain, event.beside)]
        return Spoke(event.router, picks[0], event.other, picks[1])

    def _picked(self, job: Job, gain: Mapping[str, float], now: float) -> str:
        if job.guesses:
            gain = {name: gain.get(name, 0.0) + guess.gain for name, guess in job.guesses.items()}
        try:
            plan = self._planner.looked_at(job.request, gain)
        except NotFound:
            return ""
        _, run, wait, _ = self._door.consider(job, plan, now)
        pick = run or wait
        return pick.id if pick is not None else ""
