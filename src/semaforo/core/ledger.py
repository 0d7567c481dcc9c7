"""The life of a request from the queue to its one terminal answer.

Rules this module keeps:

1. A request that was accepted into `State.jobs` leaves it only through `finish`, exactly once, with one `Finish`
   effect; admitted = done + failed + shed + expired + cancelled + live.
2. Its payload is released when its answer is given and no running batch needs it any more: at once, or when
   the last batch that it was part of ends (`State.orphans`).
3. A batch that nobody waits for is cancelled, once.
"""

from __future__ import annotations

from heapq import heapify, heappush

from semaforo.core import queue as queues
from semaforo.core.effects import Cancel, DispatcherEffect, Finish, Outcome, Release
from semaforo.core.events import BatchDone, BatchFailed, Busy
from semaforo.core.spending import Spending
from semaforo.core.state import Batch, Job, Lane, Orphan, Phase, State, TaskQueue, Timer, new_queue

MAX_WAIT_S = 60.0
RETRY_BURST = 100.0
RETRY_SHARE = 0.2
_ORDER_S = 10.0
_INFINITE = float("inf")


class Ledger:
    """Operations on the jobs of a `State`; holds nothing of its own.

    Attributes:
        spending: The accounts of budgets.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.spending = Spending(state)

    # --- queue -----------------------------------------------------------------------------------------

    def queue_of(self, task: str, now: float) -> TaskQueue:
        """Return the queue of a task, made when first needed."""
        found = self.state.queues.get(task)
        if found is None:
            found = self.state.queues[task] = new_queue(now, RETRY_BURST)
        return found

    def enqueue(self, job: Job, lane: Lane, now: float) -> None:
        """Let a job wait in its lane."""
        job.phase = Phase.WAITING
        job.lane = lane.id
        if not lane.rows:
            variants = self.state.variants
            for variant in lane.open + lane.reserve:
                variants[variant].lanes.append(lane.id)
        queues.push(self.queue_of(job.task, now), lane, job)

    def dequeue(self, job: Job, *, served: bool = False) -> None:
        """Take a waiting job out of its lane, because it is served or for another reason."""
        lane = self.state.lanes[job.lane]
        (queues.serve if served else queues.remove)(self.state.queues[job.task], lane, job)
        if not lane.rows:
            variants = self.state.variants
            for variant in lane.open + lane.reserve:
                if variant in variants:
                    variants[variant].lanes.remove(lane.id)

    # --- time ------------------------------------------------------------------------------------------

    def set_timer(self, at: float, kind: Timer, key: str) -> None:
        """Ask to be woken; timers whose reason has gone are dropped in passing."""
        state = self.state
        heappush(state.timers, (at, state.next_seq(), int(kind), key))
        if len(state.timers) > 1024 + 4 * len(state.jobs) + len(state.replicas):
            state.timers = [t for t in state.timers if self.alive(t[2], t[3])]
            heapify(state.timers)

    def alive(self, kind: int, key: str) -> bool:
        """Tell whether what a timer was set for is still there."""
        if kind == Timer.REPLICA:
            return key in self.state.replicas
        if kind == Timer.HEDGE:
            return int(key) in self.state.batches
        return kind == Timer.READY or key in self.state.jobs

    @staticmethod
    def sort_key(arrived: float, deadline: float) -> float:
        """Return what the queue sorts by: a request without a deadline is due `_ORDER_S` after it arrived."""
        return deadline if deadline < _INFINITE else arrived + _ORDER_S

    # --- the end ---------------------------------------------------------------------------------------

    def finish(
        self,
        job: Job,
        outcome: Outcome,
        now: float,
        out: list[DispatcherEffect],
        *,
        batch: int = 0,
        variant: str = "",
        replica: str = "",
        code: str = "",
        message: str = "",
        retry_after_s: float = 0.0,
        cost: float = 0.0,
    ) -> None:
        """Give a job its terminal answer. It must not be queued; batches that still run it become orphans."""
        state = self.state
        rid = job.request.id
        del state.jobs[rid]
        step = job.request.step
        if step is not None:
            siblings = state.children.get(step.parent)
            if siblings is not None:
                siblings.remove(rid)
                if not siblings:
                    del state.children[step.parent]
        out.append(
            Finish(
                rid, outcome, batch, variant, replica, code, message, retry_after_s,
                (job.bound_at if job.bound_at >= 0.0 else now) - job.arrived, now - job.arrived, job.paid + cost,
            )
        )  # fmt: skip
        attempts = (job.batch != 0) + (job.hedge != 0)
        if job.accounts:
            (self.spending.part if attempts else self.spending.settle)(job, cost, now)
        if attempts:
            state.orphans[rid] = Orphan(
                attempts, job.rows, job.request.prompt_tokens, job.reserved, job.accounts
            )
            for number in (job.batch, job.hedge):
                if number:
                    self._cancel_if_unwanted(number, out)
        else:
            out.append(Release(rid))

    def expire(self, job: Job, now: float, out: list[DispatcherEffect], cost: float = 0.0) -> None:
        """Answer a job whose deadline passed while it ran, or in the very moment its result came, at a cost."""
        asked = (job.deadline - job.arrived) * 1e3
        text = f"the deadline of {asked:.3g} ms passed before an answer was ready"
        self.finish(job, "expired", now, out, code="expired", message=text, cost=cost)

    def leave(
        self,
        rid: str,
        batch: Batch,
        event: BatchDone | BatchFailed | Busy,
        now: float,
        out: list[DispatcherEffect],
    ) -> None:
        """Account that one batch of an orphan has ended, and pay for it."""
        orphan = self.state.orphans.get(rid)
        if orphan is None:
            return
        orphan.batches -= 1
        if orphan.accounts:
            # The steps of a graph have paid for themselves.
            graph = isinstance(event, BatchDone) and event.cost is not None
            cost = 0.0 if graph else self.spending.cost(event, batch, orphan.rows, orphan.prompt_tokens)
            (self.spending.part if orphan.batches else self.spending.settle)(orphan, cost, now)
        if not orphan.batches:
            del self.state.orphans[rid]
            out.append(Release(rid))

    def _cancel_if_unwanted(self, number: int, out: list[DispatcherEffect]) -> None:
        batch = self.state.batches[number]
        if not batch.cancelled and not any(m in self.state.jobs for m in batch.members):
            batch.cancelled = True
            out.append(Cancel(number, batch.replica))

    @staticmethod
    def unlink(job: Job, number: int) -> None:
        """Note that one of a job's batches has ended."""
        if job.batch == number:
            job.batch, job.hedge = job.hedge, 0
        elif job.hedge == number:
            job.hedge = 0

    def wanted(self, batch: Batch) -> list[Job]:
        """Return the members of a batch that still wait for an answer."""
        jobs = self.state.jobs
        return [jobs[m] for m in batch.members if m in jobs]
