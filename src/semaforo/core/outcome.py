"""What happens when a batch ends: answers, retries, ejections, and the next work for the replica.

The branches of a failure, in order; the code repeats the numbers:

1. Nobody waits for the work any more: nothing to do.
2. The input is at fault and the member ran alone: it fails.
3. A member of a larger batch: it is run again alone, so that one bad member cannot take others with it.
4. A stream that has begun, or work that may have been done already and is not idempotent: it fails.
5. Tries and the retry budget allow it: it goes back and is placed anew, away from this replica.
6. Otherwise it fails with what the replica said.
"""

from __future__ import annotations

from semaforo.core.arrival import Door
from semaforo.core.effects import DispatcherEffect, Drained, Ejected, Restored
from semaforo.core.events import BatchDone, BatchFailed, Busy, FirstChunk, Progress
from semaforo.core.history import Historian
from semaforo.core.ledger import Ledger
from semaforo.core.placing import Placer
from semaforo.core.plan import Choice
from semaforo.core.state import Batch, Job, Phase, ReplicaBook, State
from semaforo.core.supply import Supply
from semaforo.entities import StreamProfile
from semaforo.policy import breaker

MAX_ATTEMPTS = 3
BUSY_PAUSE_S = 0.005


SLOWLY = 1.1
"""Most by which one observation of a supple variant counts as longer than usual."""


class Outcomes:
    """Handles the ends of batches for a `State`; holds nothing of its own."""

    def __init__(
        self,
        state: State,
        supply: Supply,
        ledger: Ledger,
        placer: Placer,
        door: Door,
        historian: Historian,
    ) -> None:
        self.state = state
        self._supply = supply
        self._ledger = ledger
        self._placer = placer
        self._door = door
        self._historian = historian

    # --- well ------------------------------------------------------------------------------------------

    def done(self, event: BatchDone, now: float, out: list[DispatcherEffect]) -> None:
        """Answer the members of a batch that ended well, once the replica has its next work.

        Answers take a driver time (encoding, writing), and a device should not wait for that.
        """
        number = event.batch
        batch, replica = self._supply.end(number, now)
        if batch is None:
            return
        state = self.state
        self._learn(batch, replica, event, now, out)
        jobs = state.jobs
        answers: list[DispatcherEffect] = []
        failed = {why[0]: why for why in event.failed} if event.failed else None
        spending = self._ledger.spending
        for rid in batch.members:
            job = jobs.get(rid)
            if job is None:
                self._ledger.leave(rid, batch, event, now, answers)
                continue
            cost = spending.cost(event, batch, job.rows, job.request.prompt_tokens)
            if event.cost is not None:
                # Its steps have paid for themselves.
                spending.settle(job, 0.0, now)
            if job.hedge:
                self._ledger.unlink(job, number)
            else:
                job.batch = 0
            if failed and rid in failed:
                _, code, text, retry_after_s = failed[rid]
                self._ledger.finish(
                    job,
                    "failed",
                    now,
                    answers,
                    variant=batch.variant,
                    replica=batch.replica,
                    code=code,
                    message=text,
                    retry_after_s=float(retry_after_s),
                    cost=cost if event.cost is not None else 0.0,
                )
            elif now > job.deadline and not job.started:
                # A driver's timers are coarser than a short deadline: late is late all the same.
                self._ledger.expire(job, now, answers, cost)
            else:
                self._historian.served(batch.variant, job, cost, now, told=event.cost is not None)
                self._ledger.finish(
                    job,
                    "done",
                    now,
                    answers,
                    batch=number,
                    variant=batch.variant,
                    replica=batch.replica,
                    cost=cost,
                )
        self._freed(batch.replica, replica, now, out)
        out += answers

    def _learn(
        self,
        batch: Batch,
        replica: ReplicaBook | None,
        event: BatchDone,
        now: float,
        out: list[DispatcherEffect],
    ) -> None:
        book = self.state.variants.get(batch.variant)
        if book is None or replica is None:
            return
        elapsed = event.service_s if replica.exclusive else now - batch.started
        variant = self.state.catalog.variants.get(batch.variant)
        if variant is not None and variant.supple:
            elapsed = least_of(elapsed, book.stream_s or book.fit.seconds(batch.rows))
        if variant is not None and isinstance(variant.profile, StreamProfile):
            profile = variant.profile
            book.stream_s += 0.1 * (elapsed - book.stream_s)
            if event.output_tokens:
                book.output_tokens += 0.05 * (event.output_tokens - book.output_tokens)
                if batch.first_at and event.output_tokens > 1 and profile.token_s > 0.0:
                    per_token = (now - batch.first_at) / (event.output_tokens - 1)
                    book.token_scale += 0.1 * (per_token / profile.token_s - book.token_scale)
            expected = batch.expected_s
        else:
            expected = book.fit.seconds(batch.rows)
            # One stall must not pass for the usual speed; what persists gets through all the same.
            book.fit.learn(batch.rows, min(elapsed, 4.0 * expected + 0.001))
            if replica.ahead:
                usual = book.work.seconds(batch.rows)
                book.work.learn(batch.rows, min(event.service_s, 4.0 * usual + 0.001))
        if book.ready > 1 and expected > 0.0:
            replica.speed += 0.1 * (min(elapsed / expected, 100.0) - replica.speed)
        else:
            # Alone, it is what the fit is made of.
            replica.speed += 0.1 * (1.0 - replica.speed)
        replica.samples += 1
        replica.failures = 0
        if replica.ramp:
            replica.ramp *= 2
            if variant is None or replica.ramp >= variant.max_rows:
                replica.ramp = 0
                out.append(Restored(batch.replica))
        elif replica.ejections and replica.samples % 100 == 0:
            replica.ejections -= 1
        if replica.samples % 20 == 0 and book.ready > 2:
            self._eject_if_slow(batch.replica, replica, now, out)

    def _eject_if_slow(
        self, replica_id: str, replica: ReplicaBook, now: float, out: list[DispatcherEffect]
    ) -> None:
        siblings = [
            r for r in self.state.replicas.values() if r.variant == replica.variant and not r.draining
        ]
        speeds = [r.speed for r in siblings]
        away = sum(1 for r in siblings if r.away_until)
        if 2 * (away + 1) <= len(siblings) and breaker.lags(replica.speed, replica.samples, speeds):
            self._eject(replica_id, replica, f"{replica.speed:.1f} times slower than predicted", now, out)

    def _eject(
        self, replica_id: str, replica: ReplicaBook, reason: str, now: float, out: list[DispatcherEffect]
    ) -> None:
        seconds = breaker.ejection_s(replica.ejections)
        replica.ejections += 1
        self._supply.send_away(replica_id, replica, now + seconds, ejected=True)
        out.append(Ejected(replica_id, reason, seconds))

    def _freed(
        self, replica_id: str, replica: ReplicaBook | None, now: float, out: list[DispatcherEffect]
    ) -> None:
        if replica is None:
            return
        if replica.away_until:
            self._placer.fill_siblings(replica.variant, now, out)
        if replica.draining:
            if not replica.in_flight:
                out.append(Drained(replica_id))
            if not replica.exclusive:
                return
        else:
            self._supply.offer(replica_id, replica)
        self._placer.fill_device(replica_id, now, out)

    # --- badly -----------------------------------------------------------------------------------------

    def failed(self, event: BatchFailed, now: float, out: list[DispatcherEffect]) -> None:
        """Retry or fail the members of a batch that ended badly."""
        number = event.batch
        batch, replica = self._supply.end(number, now)
        if batch is None:
            return
        if replica is not None:
            self._blame(event, batch, replica, now, out)
        again: list[Job] = []
        for rid in batch.members:
            job = self.state.jobs.get(rid)
            if job is None:  # 1
                self._ledger.leave(rid, batch, event, now, out)
                continue
            self._ledger.unlink(job, number)
            spending = self._ledger.spending
            cost = spending.cost(event, batch, job.rows, job.request.prompt_tokens)
            if job.batch:
                spending.part(job, cost, now)
                continue
            text = event.message or f"replica {batch.replica} failed"
            if event.kind == "invalid" and len(batch.members) == 1:  # 2
                self._fail(job, batch, "invalid_request", text, now, out)
            elif len(batch.members) > 1 and (job.request.idempotent or event.kind == "invalid"):  # 3
                job.solo = True
                spending.part(job, cost, now)
                again.append(job)
            elif job.started or (not job.request.idempotent and event.kind in ("crash", "upstream")):  # 4
                self._fail(job, batch, "model_failed", text, now, out, cost=cost)
            elif self._may_retry(job, now):  # 5
                spending.part(job, cost, now)
                again.append(job)
            else:  # 6
                self._fail(job, batch, "model_failed", text, now, out, event.retry_after_s)
        for job in again:
            job.phase = Phase.WAITING
            job.avoid = batch.replica
            job.bound_at = -1.0
            self._door.replace(job, now, out, "retry")
        self._freed(batch.replica, replica, now, out)

    def _blame(
        self, event: BatchFailed, batch: Batch, replica: ReplicaBook, now: float, out: list[DispatcherEffect]
    ) -> None:
        if event.kind in ("error", "upstream") and not batch.cancelled:
            replica.failures += 1
            if event.retry_after_s > 0.0:
                self._supply.send_away(batch.replica, replica, now + event.retry_after_s, ejected=False)
            elif replica.failures >= breaker.FAILURES and not replica.away_until:
                reason = f"{replica.failures} failures in a row: {event.message}"
                self._eject(batch.replica, replica, reason, now, out)

    def _may_retry(self, job: Job, now: float) -> bool:
        job.attempts += 1
        if job.attempts >= MAX_ATTEMPTS:
            return False
        budget = self._ledger.queue_of(job.task, now)
        if budget.retries < 1.0:
            return False
        budget.retries -= 1.0
        return True

    def _fail(
        self, job: Job, batch: Batch, code: str, text: str, now: float, out: list[DispatcherEffect],
        retry_after_s: float = 0.0, cost: float = 0.0,
    ) -> None:  # fmt: skip
        self._ledger.finish(
            job, "failed", now, out, variant=batch.variant, replica=batch.replica, code=code, message=text,
            retry_after_s=float(retry_after_s), cost=cost,
        )  # fmt: skip

    def busy(self, event: Busy, now: float, out: list[DispatcherEffect]) -> None:
        """Place the members of a batch anew that a worker refused because it is full."""
        number = event.batch
        batch, replica = self._supply.end(number, now)
        if batch is None:
            return
        if replica is not None:
            pause = event.retry_after_s or BUSY_PAUSE_S
            self._supply.send_away(batch.replica, replica, now + pause, ejected=False)
        for rid in batch.members:
            job = self.state.jobs.get(rid)
            if job is None:
                self._ledger.leave(rid, batch, event, now, out)
                continue
            self._ledger.unlink(job, number)
            if not job.batch:
                job.phase = Phase.WAITING
                job.bound_at = -1.0
                self._door.replace(job, now, out, "replica was busy")
        self._freed(batch.replica, replica, now, out)

    # --- streams and hedges ----------------------------------------------------------------------------

    def first_chunk(self, event: FirstChunk, now: float, out: list[DispatcherEffect]) -> None:
        """Note that a stream has begun, and learn its time to the first token."""
        batch = self.state.batches.get(event.batch)
        if batch is None or batch.first_at:
            return
        batch.first_at = now
        for job in self._ledger.wanted(batch):
            job.started = True
            variant = self.state.catalog.variants.get(batch.variant)
            if variant is not None and isinstance(variant.profile, StreamProfile):
                profile = variant.profile
                expected = profile.first_s + profile.prompt_token_s * job.request.prompt_tokens
                if expected > 0.0:
                    book = self.state.variants[batch.variant]
                    scale = (now - batch.started) / expected
                    scale = least_of(scale, book.first_scale) if variant.supple else scale
                    book.first_scale += 0.1 * (scale - book.first_scale)

    def progress(self, event: Progress, now: float, out: list[DispatcherEffect]) -> None:
        """Hold a stream's place in the token budget when it runs longer than predicted."""
        batch = self.state.batches.get(event.batch)
        if batch is None:
            return
        for job in self._ledger.wanted(batch):
            more = job.request.prompt_tokens + event.output_tokens - batch.tokens
            if more > 0.0:
                batch.tokens += more
                replica = self.state.replicas.get(batch.replica)
                if replica is not None:
                    replica.tokens += more

    def hedge(self, number: int, now: float, out: list[DispatcherEffect]) -> None:
        """Start a second copy of slow work where a replica is free; the first answer counts."""
        batch = self.state.batches.get(number)
        if batch is None or batch.cancelled:
            return
        job = self.state.jobs.get(batch.members[0])
        if job is None or job.hedge or job.batch != number or job.started:
            return
        for choice in self._door.choices(job):
            replica = self._free_elsewhere(choice, job, batch.replica, now)
            if replica:
                self._placer.hedge(job, choice, replica, now, out)
                return

    def _free_elsewhere(self, choice: Choice, job: Job, running_on: str, now: float) -> str:
        if not self._placer.free(choice, job) or choice.variant.cost.metered:
            return ""
        replica = self._supply.take(choice.book, choice.id, "", running_on, now)
        return replica if replica != running_on and self._placer.suits(choice, job, replica, now) else ""


def least_of(seen: float, usual: float) -> float:
    """Return what is learned of work that may be less: what was quick counts, what was slow a little at a time."""
    return min(seen, SLOWLY * usual)
