"""Binding work to replicas: at arrival if something is free, otherwise when a replica comes free.

Rules this module keeps:

1. Late binding: a waiting request belongs to a lane, never to a variant or a replica.
2. Work conservation: a replica with a free slot takes whatever waits that it may serve; an idle *reserve* variant
   takes only requests whose patience with the open variants has ended.
3. A batch holds requests of one shape; it stops growing where one more row would make a member late that would
   be in time without it, or where growing does not pay (`policy.batch`).
4. Work that cannot be done in time is not begun: it is left to a faster variant, or dropped when none is left.
"""

from __future__ import annotations

from semaforo.core import queue as queues
from semaforo.core.effects import Considered, Decided, DispatcherEffect, Run
from semaforo.core.ledger import Ledger
from semaforo.core.plan import Choice, Plan
from semaforo.core.state import Batch, Job, Phase, ReplicaBook, State, Timer, VariantBook
from semaforo.core.supply import Supply
from semaforo.entities import StreamProfile
from semaforo.policy import route
from semaforo.policy.batch import rows_ahead, worthwhile_rows
from semaforo.policy.explore import Trial

_INFINITE = float("inf")


class Placer:
    """Starts batches and streams on the replicas of a `State`; holds nothing of its own."""

    def __init__(self, state: State, supply: Supply, ledger: Ledger) -> None:
        self.state = state
        self._supply = supply
        self._ledger = ledger

    # --- predictions -----------------------------------------------------------------------------------

    def service_s(self, choice: Choice, job: Job) -> float:
        """Predict the seconds a job takes alone on a replica of usual speed."""
        if choice.stream:
            return self._stream_s(choice.book, choice.variant.profile, job)
        fit = choice.book.fit
        return fit.base + fit.row * job.rows

    @staticmethod
    def _stream_s(book: VariantBook, profile: object, job: Job) -> float:
        assert isinstance(profile, StreamProfile)
        request = job.request
        first = profile.first_s + profile.prompt_token_s * request.prompt_tokens
        tokens = route.predicted_tokens(request, book.output_tokens)
        return first * book.first_scale + tokens * profile.token_s * book.token_scale

    def fastest_s(self, job: Job) -> float:
        """Predict the least seconds a waiting job takes alone on any variant that may serve it."""
        lane, variants = self.state.lanes[job.lane], self.state.variants
        least = _INFINITE
        for name in lane.open + lane.reserve:
            book = variants.get(name)
            if book is None or not (book.ready or book.expected_until):
                continue
            if book.stream_s:
                seconds = self._stream_s(book, self.state.catalog.variants[name].profile, job)
            else:
                seconds = book.fit.base + book.fit.row * job.rows
            least = min(least, seconds)
        return 0.0 if least == _INFINITE else least

    def free(self, choice: Choice, job: Job) -> bool:
        """Tell whether some replica of the variant could take this job now."""
        if not self._supply.has_free(choice.book):
            return False
        return not choice.stream or self._roomy(choice, job) != ""

    def _roomy(self, choice: Choice, job: Job) -> str:
        # The replica with the most free slots need not be the one that can hold the tokens.
        for replica_id in self._supply.free_replicas(choice.book):
            if self._fits(replica_id, choice.id, job):
                return replica_id
        return ""

    def suits(self, choice: Choice, job: Job, replica_id: str, now: float) -> bool:
        """Tell whether a free replica has room for a job and would finish it in time."""
        end = now + self.service_s(choice, job) * self.state.replicas[replica_id].speed
        return end <= job.deadline and (not choice.stream or self._fits(replica_id, choice.id, job))

    def _fits(self, replica_id: str, variant_id: str, job: Job) -> bool:
        profile = self.state.catalog.variants[variant_id].profile
        if not isinstance(profile, StreamProfile) or not profile.tokens:
            return True
        replica = self.state.replicas[replica_id]
        return replica.in_flight == 0 or replica.tokens + job.tokens <= profile.tokens

    # --- at arrival ------------------------------------------------------------------------------------

    def start_alone(
        self, job: Job, choice: Choice, considered: tuple[Considered, ...], reason: str, now: float,
        out: list[DispatcherEffect], trial: Trial,
    ) -> None:  # fmt: skip
        """Run a job that does not wait on a free replica of the variant (`free` must hold)."""
        request = job.request
        replica_id = self._supply.take(choice.book, choice.id, request.affinity, job.avoid, now)
        if choice.stream and not self._fits(replica_id, choice.id, job):
            replica_id = self._roomy(choice, job)
        expected = self.service_s(choice, job) * self.state.replicas[replica_id].speed
        out.append(
            Decided(
                request.id, job.task, considered, choice.id, replica_id, reason, 0, job.moves,
                trial.propensity, trial.shadow, job.trust, bool(job.guesses), job.spoke,
            )
        )  # fmt: skip
        self._run((job,), job.rows, replica_id, choice.id, expected, now, out)

    # --- when a replica is free ------------------------------------------------------------------------

    def fill(self, replica_id: str, now: float, out: list[DispatcherEffect]) -> None:
        """Give a replica all the waiting work it can take."""
        state = self.state
        replica = state.replicas.get(replica_id)
        if replica is None:
            return
        variant_id = replica.variant
        book = state.variants[variant_id]
        while book.lanes:
            start, most = now, replica.max_rows or state.catalog.variants[variant_id].max_rows
            free = self._may_take(replica)
            if not free:
                most = self._rows_ahead(replica, book, most)
                if most < 1:
                    return
                running = state.batches[replica.batch]
                start = max(now, running.started + running.expected_s)
            if book.stream_s:
                picked = self._gather_stream(replica_id, replica, variant_id, book, now, out)
            else:
                picked = self._gather_batch(replica_id, replica, variant_id, book, now, start, most, out)
            if not picked:
                return
            rows = 0
            for job in picked:
                rows += job.rows
                reason = "pressure" if variant_id in state.lanes[job.lane].reserve else "waited"
                out.append(
                    Decided(job.request.id, job.task, (), variant_id, replica_id, reason, 0, job.moves)
                )
            if book.stream_s:
                profile = state.catalog.variants[variant_id].profile
                expected = self._stream_s(book, profile, picked[0]) * replica.speed
            else:
                expected = (book.fit.base + book.fit.row * rows) * replica.speed
            self._run(tuple(picked), rows, replica_id, variant_id, expected, now, out, start, ahead=not free)

    def fill_device(self, replica_id: str, now: float, out: list[DispatcherEffect]) -> None:
        """Give work to a replica that came free; on a shared device the others get their turn first."""
        replica = self.state.replicas.get(replica_id)
        if replica is None:
            return
        if not replica.exclusive:
            self.fill(replica_id, now, out)
            return
        ring = self.state.devices[replica.device]
        if len(ring) > 1:
            at = ring.index(replica_id) + 1
            ring[:] = ring[at:] + ring[:at]
        self.fill_turn(replica.device, now, out)

    def fill_siblings(self, variant_id: str, now: float, out: list[DispatcherEffect]) -> None:
        """Let idle replicas of a variant look again at what avoids them, because another one is out of reach."""
        book = self.state.variants[variant_id]
        if book.lanes and self._supply.has_free(book):
            for replica_id in self._supply.free_replicas(book):
                self.fill(replica_id, now, out)

    def fill_turn(self, device: str, now: float, out: list[DispatcherEffect]) -> None:
        """Give the turn of an exclusive device to the first of its replicas that has work."""
        for other in self.state.devices[device]:
            if device in self.state.turns:
                return
            self.fill(other, now, out)

    def _may_take(self, replica: ReplicaBook) -> bool:
        return (
            replica.in_flight < replica.slots
            and not replica.draining
            and not replica.away_until
            and not (replica.exclusive and replica.device in self.state.turns)
        )

    def _rows_ahead(self, replica: ReplicaBook, book: VariantBook, max_rows: int) -> int:
        """Return the most rows to hand over to a replica that runs a batch; 0 = none."""
        if (
            not replica.ahead
            or book.stream_s
            or replica.next_batch
            or replica.in_flight != 1
            or replica.slots != 1
            or replica.draining
            or replica.away_until
            or replica.ramp
        ):
            return 0
        return rows_ahead(book.work, sum(self.state.queues[book.task].rows), max_rows)

    def _gather_batch(
        self, replica_id: str, replica: ReplicaBook, variant_id: str, book: VariantBook, now: float,
        start: float, most: int, out: list[DispatcherEffect],
    ) -> list[Job]:  # fmt: skip
        state = self.state
        fit, speed = book.fit, replica.speed
        limit = replica.ramp or worthwhile_rows(book.work if replica.ahead else fit, most)
        picked: list[Job] = []
        passed: set[str] = set()
        rows, shape, tightest = 0, "", _INFINITE
        queue = state.queues[book.task]
        again = True
        while again and rows < limit and book.lanes:
            again = False
            before = len(picked)
            lanes = set(book.lanes)
            for entry in queues.in_order(queue, lanes):
                rid = entry[2]
                if rid in passed:
                    continue
                job = state.jobs[rid]
                lane = state.lanes[job.lane]
                if picked:
                    if lane.shape != shape or job.solo or rows + job.rows > limit:
                        passed.add(rid)
                        continue
                elif not self._eligible(job, lane.reserve, replica_id, variant_id, book, now):
                    passed.add(rid)
                    continue
                end = start + speed * (fit.base + fit.row * (rows + job.rows)) + fit.spread
                if end > job.deadline or end > tightest:
                    passed.add(rid)
                    if now + self.fastest_s(job) > job.deadline:
                        self.drop_late(job, now, out)
                        again = True
                        break
                    continue
                if picked and not self._eligible(job, lane.reserve, replica_id, variant_id, book, now):
                    passed.add(rid)
                    continue
                shape = lane.shape
                self._ledger.dequeue(job, served=True)
                picked.append(job)
                rows += job.rows
                tightest = min(tightest, job.deadline)
                if job.solo or rows >= limit:
                    return picked
                if len(queue.classes[job.klass].tenants) > 1 or queue.rows[job.klass] != sum(queue.rows):
                    again = True
                    break
            else:
                # All that was looked at is in: look further.
                again = len(picked) - before == queues.LOOK
        return picked

    def _eligible(
        self,
        job: Job,
        reserve: tuple[str, ...],
        replica_id: str,
        variant_id: str,
        book: VariantBook,
        now: float,
    ) -> bool:
        if job.press_at > now and variant_id in reserve:
            return False
        return job.avoid != replica_id or not self._others(variant_id, replica_id)

    def _others(self, variant_id: str, replica_id: str) -> bool:
        return any(
            r.variant == variant_id and not r.draining and not r.away_until
            for name, r in self.state.replicas.items()
            if name != replica_id
        )

    def _gather_stream(
        self, replica_id: str, replica: ReplicaBook, variant_id: str, book: VariantBook, now: float,
        out: list[DispatcherEffect],
    ) -> list[Job]:  # fmt: skip
        state = self.state
        queue = state.queues[book.task]
        profile = state.catalog.variants[variant_id].profile
        late: list[Job] = []
        found: list[Job] = []
        for entry in queues.in_order(queue, set(book.lanes)):
            job = state.jobs[entry[2]]
            if not self._eligible(job, state.lanes[job.lane].reserve, replica_id, variant_id, book, now):
                continue
            if now + self._stream_s(book, profile, job) * replica.speed > job.deadline:
                if now + self.fastest_s(job) > job.deadline:
                    late.append(job)
                continue
            if not self._fits(replica_id, variant_id, job):
                # Passing it over for a shorter one would starve long prompts: let the replica drain first.
                break
            self._ledger.dequeue(job, served=True)
            found.append(job)
            break
        for job in late:
            self.drop_late(job, now, out)
        return found

    def drop_late(self, job: Job, now: float, out: list[DispatcherEffect]) -> None:
        """Drop a waiting job that nobody can finish in time any more."""
        self._ledger.dequeue(job)
        self._ledger.finish(
            job, "expired", now, out, code="expired",
            message=f"dropped after {(now - job.arrived) * 1e3:.0f} ms in the queue: no replica could finish it "
            f"before its deadline of {(job.deadline - job.arrived) * 1e3:.0f} ms any more",
        )  # fmt: skip

    # --- running ---------------------------------------------------------------------------------------

    def hedge(
        self, job: Job, choice: Choice, replica_id: str, now: float, out: list[DispatcherEffect]
    ) -> None:
        """Run a second copy of a running job on another replica; the first answer counts."""
        expected = self.service_s(choice, job) * self.state.replicas[replica_id].speed
        out.append(Decided(job.request.id, job.task, (), choice.id, replica_id, "hedge", 0, job.moves))
        number = self._begin((job,), job.rows, replica_id, choice.id, expected, now, hedge=True)
        job.hedge = number
        deadline = job.deadline if job.deadline < _INFINITE else None
        out.append(Run(number, replica_id, (job.request.id,), job.rows, deadline))

    def _run(
        self, picked: tuple[Job, ...], rows: int, replica_id: str, variant_id: str, expected: float, now: float,
        out: list[DispatcherEffect], start: float = 0.0, *, ahead: bool = False,
    ) -> None:  # fmt: skip
        number = self._begin(
            picked, rows, replica_id, variant_id, expected, start or now, hedge=False, ahead=ahead
        )
        deadline = _INFINITE
        for job in picked:
            job.phase = Phase.RUNNING
            job.batch = number
            job.bound_at = now
            job.moves += 1
            if job.deadline < deadline:
                deadline = job.deadline
            if job.request.affinity:
                self._supply.remember(variant_id, job.request.affinity, replica_id)
        members = (picked[0].request.id,) if len(picked) == 1 else tuple(j.request.id for j in picked)
        out.append(Run(number, replica_id, members, rows, deadline if deadline < _INFINITE else None))
        if len(picked) == 1 and picked[0].request.idempotent:
            factor = self.state.catalog.tasks[picked[0].task].hedge
            if factor > 0.0:
                delay = max(0.0, start - now) + factor * expected
                self._ledger.set_timer(now + delay, Timer.HEDGE, str(number))

    def _begin(
        self, picked: tuple[Job, ...], rows: int, replica_id: str, variant_id: str, expected: float, start: float,
        *, hedge: bool, ahead: bool = False,
    ) -> int:  # fmt: skip
        number = self.state.next_seq()
        members = tuple(j.request.id for j in picked)
        tokens = picked[0].tokens
        batch = Batch(replica_id, variant_id, members, rows, start, expected, tokens, 0.0, hedge)
        if ahead:
            self._supply.follow(number, batch)
        else:
            self._supply.begin(number, batch)
        return number


def why_unsatisfiable(plan: Plan, target: str) -> str:
    """Return the sentence that tells a caller why nothing meets the contract."""
    parts = ", ".join(f"{c.variant} by {c.ruled_out} ({c.detail})" for c in plan.ruled_out)
    return f"no variant of '{target}' meets the contract: {parts or 'none is in service'}"
