"""What happens to a request at the door.

The branches, in order; the code repeats the numbers:

1. Its target is unknown, or no variant meets its contract: refused, and told why.
2. No variant that meets the contract has a replica, or expects one back: refused as not ready.
3. Its task waits for scores: held until they come or are late.
4. An open variant has a free replica that makes the deadline: it runs there, on the one with the best utility.
5. Only a reserve variant is free, and waiting for an open one would use up its patience: it runs there.
6. Somebody can make the deadline later: it waits, unbound. A full queue sheds the last of a lower class first.
7. Nobody can make the deadline, or its budget is spent: refused at once, with the predicted wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

from semaforo.core import queue as queues
from semaforo.core.effects import Considered, Decided, DispatcherEffect, Score
from semaforo.core.exploring import explores, trial_of
from semaforo.core.ledger import MAX_WAIT_S, RETRY_BURST, RETRY_SHARE, Ledger
from semaforo.core.placing import Placer, why_unsatisfiable
from semaforo.core.plan import Choice, Plan, Planner
from semaforo.core.refusal import Refusals
from semaforo.core.state import Job, Phase, State, TaskQueue, Timer, new_queue
from semaforo.core.supply import Supply
from semaforo.entities import Request
from semaforo.entities.units import unlike
from semaforo.errors import NotFound
from semaforo.policy import route
from semaforo.policy.admit import predicted_wait
from semaforo.policy.budget import SLACK
from semaforo.policy.explore import Trial
from semaforo.policy.pace import BEGUN

_INFINITE = float("inf")
_SHORT = 0.1
_CERTAIN = Trial("", 1.0)


class Door:
    """Places requests that arrive, or come back after a failure, on the replicas of a `State`."""

    def __init__(
        self, state: State, supply: Supply, planner: Planner, ledger: Ledger, placer: Placer
    ) -> None:
        self.state = state
        self._supply = supply
        self._planner = planner
        self._ledger = ledger
        self._placer = placer
        self._refusals = Refusals(state, ledger)

    def arrive(self, request: Request, now: float, out: list[DispatcherEffect]) -> None:
        """Decide on a new request."""
        state = self.state
        if request.id in state.jobs or request.id in state.orphans:
            self._refusals.refuse(request, now, out, "conflict", f"request id '{request.id}' is in use")
            return
        try:
            plan = self._planner.plan(request)
        except NotFound as error:  # 1
            out.append(Decided(request.id, "", reason=error.message))
            self._refusals.refuse(request, now, out, error.code, error.message)
            return
        job = self.job(request, plan, now, seq=state.next_seq())
        if reason := self.unservable(plan, request, now):  # 1, 2
            out.append(Decided(request.id, job.task, plan.ruled_out, reason=reason[1]))
            self._refusals.refuse(request, now, out, *reason)
            return
        budget = self._ledger.queue_of(job.task, now)
        if budget.retries < RETRY_BURST:
            budget.retries += RETRY_SHARE
        if request.step is not None:
            state.children.setdefault(request.step.parent, []).append(request.id)
        if plan.task.score_s > 0.0 and len(plan.choices) > 1:  # 3
            state.jobs[request.id] = job
            job.phase = Phase.SCORING
            by = min(now + plan.task.score_s, job.deadline)
            explore = plan.task.explore
            looks = explore.share > 0.0 or explore.shadow > 0.0
            out.append(Score(request.id, tuple(c.id for c in plan.choices), by, looks))
            self._ledger.set_timer(by, Timer.SCORE, request.id)
            return
        self.place(job, plan, now, out, reason="best score", fresh=True)

    def replace(self, job: Job, now: float, out: list[DispatcherEffect], reason: str) -> None:
        """Place a live job again: after scores, a failure, or a change of the catalog."""
        try:
            plan = self._planner.plan(job.request, job.gain)
        except NotFound as error:
            self._ledger.finish(job, "failed", now, out, code=error.code, message=error.message)
            return
        job.task = plan.task.name
        if why := self.unservable(plan, job.request, now):
            self._ledger.finish(job, "failed", now, out, code=why[0], message=why[1])
            return
        self.place(job, plan, now, out, reason=reason, fresh=False)

    def choices(self, job: Job) -> tuple[Choice, ...]:
        """Return the variants that may serve a live job, as its plan has them."""
        try:
            return self._planner.plan(job.request, job.gain).choices
        except NotFound:
            return ()

    # --- the decision ----------------------------------------------------------------------------------

    def place(
        self, job: Job, plan: Plan, now: float, out: list[DispatcherEffect], *, reason: str, fresh: bool
    ) -> None:
        """Run a job at once, let it wait, or refuse it (branches 4 to 7)."""
        considered, run, wait, predicted = self.consider(job, plan, now)
        budgets = self.state.catalog.budgets
        if fresh and (run is not None or wait is not None):
            self.state.jobs[job.request.id] = job
            if job.deadline < _INFINITE:
                at = job.deadline - predicted if run is None else job.deadline
                self._ledger.set_timer(max(at, now), Timer.DEADLINE, job.request.id)
        if run is not None:  # 4, 5
            if not run.open:
                reason = "pressure"
            trial = _CERTAIN
            if explores(job, plan):
                chosen, trial = trial_of(self.state, job, plan, considered, run)
                if chosen is not run:
                    run, reason = chosen, "tried"
            if budgets:
                self._reserve(job, (run,), now)
            self._placer.start_alone(job, run, considered, reason, now, out, trial)
        elif wait is not None:  # 6
            if budgets:
                plan = self._affordable(job, plan, considered, now)
            self._wait(job, plan, considered, now, out, patient=wait.open, fresh=fresh)
        elif any(c.ruled_out == "budget" for c in considered):
            again_s = self._ledger.spending.again_s(job, now)
            self._refusals.no_money(job, considered, now, out, again_s, fresh=fresh)
        else:  # 7
            self._refusals.too_late(job, considered, now, out, fresh=fresh)

    def consider(
        self, job: Job, plan: Plan, now: float
    ) -> tuple[tuple[Considered, ...], Choice | None, Choice | None, float]:
        """Score the choices of a plan at this moment.

        Returns:
            What was considered; the choice to run on now, if any; else the choice worth waiting for, if any;
            and the least predicted service of a choice in seconds.
        """
        placer, supply = self._placer, self._supply
        slack = job.deadline - now
        horizon = slack if slack < route.HORIZON_S else route.HORIZON_S
        within = plan.task.prefer.within_s
        if within is not None and within < horizon:
            horizon = within
        if horizon <= 0.0:
            horizon = 1e-9
        weights = plan.weights
        considered = list(plan.ruled_out)
        best: Choice | None = None
        best_score = -_INFINITE
        reserve: Choice | None = None
        reserve_score = -_INFINITE
        wait: Choice | None = None
        wait_s = least = _INFINITE
        goal = plan.task.prefer.at_most
        drag = weights.quality * self._price(plan.task.name) / goal if goal else 0.0
        queued = -1.0
        spending = self._ledger.spending if self.state.catalog.budgets else None
        money, account = spending.left(job, now) if spending is not None else (_INFINITE, "")
        for choice in plan.choices:
            book = choice.book
            if not book.ready and book.expected_until <= now:
                detail = "no replica is in service"
                considered.append(Considered(choice.id, "replicas", detail, quality=choice.quality))
                continue
            if choice.stream:
                service = placer.service_s(choice, job)
                is_free = placer.free(choice, job)
            else:
                fit = book.fit
                service = fit.base + fit.row * job.rows
                is_free = supply.has_free(book)
            if service < least:
                least = service
            if is_free:
                predicted = service
            else:
                if queued < 0.0:
                    queued = self._queued_s(job, plan, now)
                first = supply.first_free_s(book, now) if book.ready else 0.0
                predicted = (first if first > queued else queued) + service
            if spending is not None:
                most = spending.most(choice, job, service)
                if most > money + SLACK:
                    detail = spending.told(most, money, account)
                    considered.append(Considered(choice.id, "budget", detail, quality=choice.quality))
                    continue
            merit = choice.merit
            cost = choice.fixed_cost + choice.second * service
            if drag:
                merit -= drag * cost
            score = merit + weights.latency * (1.0 - predicted / horizon) if predicted < horizon else merit
            if predicted > slack:
                alone = service > slack
                detail = "{} ms predicted > {} ms".format(*unlike(predicted * 1e3, slack * 1e3))
                considered.append(
                    Considered(
                        choice.id,
                        "deadline" if alone else "load",
                        detail,
                        0.0,
                        predicted,
                        choice.quality,
                        cost,
                    )
                )
                continue
            considered.append(
                Considered(choice.id, "", "", score, predicted, choice.quality, cost, is_free, choice.assumed)
            )
            if not is_free:
                # An open variant is worth waiting for even where a reserve one would be free sooner.
                if wait is None or (choice.open, -predicted) > (wait.open, -wait_s):
                    wait, wait_s = choice, predicted
            elif choice.open:
                if score > best_score:
                    best, best_score = choice, score
            elif score > reserve_score:
                reserve, reserve_score = choice, score
        if best is None and reserve is not None:
            patience = self._patience(slack)
            if wait is None or not wait.open or wait_s - placer.service_s(wait, job) > patience:
                best = reserve
        return tuple(considered), best, wait, least

    def _price(self, task: str) -> float:
        pace = self.state.paces.get(task)
        return pace.price if pace is not None else BEGUN

    def _reserve(self, job: Job, choices: Sequence[Choice], now: float) -> None:
        spending, placer = self._ledger.spending, self._placer
        spending.reserve(job, max(spending.most(c, job, placer.service_s(c, job)) for c in choices), now)

    def _affordable(self, job: Job, plan: Plan, considered: tuple[Considered, ...], now: float) -> Plan:
        """Reserve for a job that waits, whichever variant it gets, and return a plan of those it can pay."""
        out = {c.variant for c in considered if c.ruled_out == "budget"}
        choices = tuple(c for c in plan.choices if c.id not in out)
        self._reserve(job, choices, now)
        return self._planner.narrowed(plan, choices, job.request.ref.shape) if out else plan

    @staticmethod
    def _patience(slack: float) -> float:
        return route.PATIENCE * slack if slack < _INFINITE else route.PATIENCE_S

    def _queued_s(self, job: Job, plan: Plan, now: float) -> float:
        """Predict the seconds until a job that joins its queue now is begun."""
        supply = self._supply
        queue = self.state.queues.get(job.task) or new_queue(now, RETRY_BURST)
        rows = queue.rows
        waiting = sum(rows)
        first, rate = _INFINITE, 0.0
        for choice in plan.choices:
            book = choice.book
            if book.ready:
                free_in = supply.first_free_s(book, now)
                if free_in < first:
                    first = free_in
                rate += supply.rate(book, choice.variant, waiting)
        if rate <= 0.0:
            # Nothing is ready, something is expected back: wait and see.
            return 0.0
        everything = first + waiting / rate
        above = above_rate = 0.0
        for c in range(job.klass):
            above += rows[c]
            above_rate += self._rate_now(queue, c, now)
        if everything < _SHORT * (job.deadline - now) and not above_rate:
            # Far from the deadline the order inside the queue makes no difference to the decision.
            return everything
        return predicted_wait(
            klass=job.klass,
            first_free_s=first,
            rate=rate,
            rows_above=above,
            rows_ahead=queues.rows_before(queue, job.klass, job.due),
            above_rate=above_rate,
        )

    # --- waiting --------------------------------------------------------------------------

    def _wait(
        self,
        job: Job,
        plan: Plan,
        considered: tuple[Considered, ...],
        now: float,
        out: list[DispatcherEffect],
        *,
        patient: bool,
        fresh: bool,
    ) -> None:
        queue = self._ledger.queue_of(job.task, now)
        ahead = sum(queue.rows[: job.klass + 1])
        over = sum(queue.rows) + job.rows - plan.task.max_queue_rows
        if over > sum(queue.rows[job.klass + 1 :]):
            self._refusals.turn_away(
                job, considered, now, out, "refused" if fresh else "shed",
                f"the queue of '{job.task}' is full ({plan.task.max_queue_rows} rows) with work of its own "
                "class or above",
                self._queued_s(job, plan, now),
            )  # fmt: skip
            return
        while over > 0 and (victim := queues.last_of_lowest(queue, job.klass)) is not None:
            over -= self.state.jobs[victim].rows
            self._refusals.shed(self.state.jobs[victim], now, out)
        self._count_arrival(queue, job.klass, job.rows, now)
        out.append(
            Decided(job.request.id, job.task, considered, "", "", "waits", ahead, job.moves, spoke=job.spoke)
        )
        lane = self.state.lanes[plan.lane]
        if not patient:
            job.press_at = now
        elif lane.reserve:
            job.press_at = now + self._patience(job.deadline - now)
            self._ledger.set_timer(job.press_at, Timer.PRESS, job.request.id)
        if job.deadline == _INFINITE:
            self._ledger.set_timer(now + MAX_WAIT_S, Timer.DEADLINE, job.request.id)
        self._ledger.enqueue(job, lane, now)

    # --- small things ----------------------------------------------------------------------------------

    def job(self, request: Request, plan: Plan, now: float, *, seq: int) -> Job:
        """Return a live request as it begins; it is not in the state yet."""
        contract = request.contract
        seconds = contract.deadline_s if contract.deadline_s is not None else plan.task.deadline_s
        deadline = now + seconds if seconds is not None else _INFINITE
        if request.step is not None and request.step.deadline_at is not None:
            deadline = min(deadline, float(request.step.deadline_at))
        tokens = 0.0
        if request.stream:
            usual = max((c.book.output_tokens for c in plan.choices), default=0.0)
            tokens = request.prompt_tokens + route.predicted_tokens(request, usual)
        return Job(
            request=request,
            seq=seq,
            arrived=now,
            deadline=deadline,
            due=Ledger.sort_key(now, deadline),
            task=plan.task.name,
            lane=plan.lane,
            klass=int(contract.priority),
            rows=request.ref.rows,
            tokens=tokens,
        )

    def unservable(self, plan: Plan, request: Request, now: float) -> tuple[str, str] | None:
        """Return code and message of why a request cannot be served at all, or None."""
        if not plan.choices:
            return "unsatisfiable", why_unsatisfiable(plan, request.target)
        for choice in plan.choices:
            if choice.book.ready or choice.book.expected_until > now:
                return None
        names = ", ".join(c.id for c in plan.choices)
        return "not_ready", f"no replica of {names} is in service for '{request.target}'"

    def _count_arrival(self, queue: TaskQueue, klass: int, rows: int, now: float) -> None:
        queue.arrival_rate[klass] = self._rate_now(queue, klass, now) + rows
        queue.arrived_at[klass] = now

    @staticmethod
    def _rate_now(queue: TaskQueue, klass: int, now: float) -> float:
        rate = queue.arrival_rate[klass]
        return rate * exp(queue.arrived_at[klass] - now) if rate else 0.0
