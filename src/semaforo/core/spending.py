"""Budgets in the life of a request: it reserves the most it can cost before it waits, and settles at its end.

Rules this module keeps:

1. A request holds one reservation, however often it is tried: it is adjusted, never added to.
2. The steps of a graph pay, each for itself; the graph pays nothing on top.
3. A variant that costs more, at most, than is left of any budget of the request is ruled out for it, so that the
   request falls back to a cheaper one, local or remote alike.
4. Work that goes on after the answer (a late one, a cancelled one, the loser of a hedge) is paid when it ends, and
   what it may cost stays reserved until then. A stream that is broken off is paid for what it has said.
"""

from __future__ import annotations

from collections.abc import Mapping

from semaforo.core.events import BatchDone, BatchFailed, Busy
from semaforo.core.plan import Choice
from semaforo.core.state import Batch, Job, Orphan, State
from semaforo.entities import Budget
from semaforo.entities.units import show_dollars, show_period
from semaforo.policy.budget import SLACK, Account

_SURE = 4.0
_MOST_ACCOUNTS = 10_000
EACH_TENANT = "tenant:*"
_TENANT = "tenant:"


class Spending:
    """The accounts of a `State`."""

    def __init__(self, state: State) -> None:
        self.state = state

    def most(self, choice: Choice, job: Job, service_s: float) -> float:
        """Return the most US dollars a job can cost on a variant.

        Exact for prices per request and for tokens that the caller has limited; device time, and tokens that nobody
        has limited, are taken for four times what is predicted.
        """
        price = choice.variant.cost
        cost = price.request + price.second * _SURE * service_s
        if choice.stream:
            request = job.request
            tokens: float = request.max_tokens
            if not tokens:
                context = choice.variant.context
                tokens = context - request.prompt_tokens if context else _SURE * choice.book.output_tokens
            # The prompt's tokens are an estimate from its bytes.
            cost += price.input_token * 2.0 * request.prompt_tokens + price.output_token * max(0.0, tokens)
        return float(cost)

    def left(self, job: Job, now: float) -> tuple[float, str]:
        """Return the US dollars a job may spend, and the name of the budget that says so."""
        least, name = float("inf"), ""
        for key, budget in self._budgets(job):
            account = self._account(key, budget, now)
            left = account.left(budget) + (job.reserved if key in job.accounts else 0.0)
            if left < least:
                least, name = left, key
        return least, name

    def told(self, most: float, left: float, name: str) -> str:
        """Return why a variant is ruled out."""
        budget = self.state.catalog.budgets.get(name) or self.state.catalog.budgets[EACH_TENANT]
        whose = name.replace("tenant:", "tenant ").replace("task:", "task ")
        return (
            f"up to {show_dollars(most)} > {show_dollars(max(0.0, left))} left of {show_dollars(budget.spend)} "
            f"per {show_period(budget.per_s)} for {whose}"
        )

    def again_s(self, job: Job, now: float) -> float:
        """Return the seconds until a window of one of a job's budgets turns."""
        turns = [
            self._account(key, budget, now).since + budget.per_s - now for key, budget in self._budgets(job)
        ]
        return min(turns, default=0.0)

    def reserve(self, job: Job, most: float, now: float) -> None:
        """Let a job hold this much and no more."""
        self._release(job)
        keys = []
        for key, budget in self._budgets(job):
            self._account(key, budget, now).reserved += most
            keys.append(key)
        job.reserved, job.accounts = most, tuple(keys)

    def cost(
        self, event: BatchDone | BatchFailed | Busy, batch: Batch, rows: int, prompt_tokens: int
    ) -> float:
        """Return the US dollars of a member of a batch that has ended, with its rows and its estimated prompt.

        What failed costs nothing, but for a stream that had begun, and for what was stopped: who charges for each
        use has it in his books by then.
        """
        variant = self.state.catalog.variants.get(batch.variant)
        if variant is None or isinstance(event, Busy):
            return 0.0
        price = variant.cost
        if isinstance(event, BatchFailed):
            if not price.metered or not (batch.first_at or event.kind == "cancelled"):
                return 0.0
            tokens = prompt_tokens
            cost = 0.0
        else:
            if event.cost is not None:
                return float(event.cost)
            tokens = event.prompt_tokens or prompt_tokens
            cost = price.second * (event.service_s / batch.rows) * rows
            if not event.output_tokens and not price.metered:
                return cost
        return cost + price.request + price.input_token * tokens + price.output_token * event.output_tokens

    def settle(self, held: Job | Orphan, cost: float, now: float) -> None:
        """Pay what work has cost, and give back what is still reserved for it."""
        keys = held.accounts
        if keys:
            self._release(held)
            self._pay(keys, cost, now)

    def part(self, held: Job | Orphan, cost: float, now: float) -> None:
        """Pay for a part of the work, and hold what is left for the rest."""
        keys, left = held.accounts, max(0.0, held.reserved - cost)
        if isinstance(held, Job):
            held.paid += cost
        if keys:
            self._release(held)
            self._pay(keys, cost, now)
            for key in keys:
                account = self.state.accounts.get(key)
                if account is not None:
                    account.reserved += left
            held.reserved, held.accounts = left, keys

    def _pay(self, keys: tuple[str, ...], cost: float, now: float) -> None:
        if not cost:
            return
        budgets = self.state.catalog.budgets
        for key in keys:
            budget = budgets.get(key) or (budgets.get(EACH_TENANT) if key.startswith(_TENANT) else None)
            if budget is not None:
                self._account(key, budget, now).spent += cost

    def remember(self, accounts: Mapping[str, tuple[float, float]], now: float) -> None:
        """Take up what was spent before a restart: dollars, and the age of the window in seconds."""
        for key, (spent, age_s) in accounts.items():
            own = self.state.accounts.setdefault(key, Account(now))
            own.since = min(own.since, now - float(age_s))
            own.spent += float(spent)

    def _release(self, held: Job | Orphan) -> None:
        accounts = self.state.accounts
        for key in held.accounts:
            account = accounts.get(key)
            if account is not None:
                left = account.reserved - held.reserved
                account.reserved = left if left > SLACK else 0.0
        held.reserved, held.accounts = 0.0, ()

    def _budgets(self, job: Job) -> list[tuple[str, Budget]]:
        budgets = self.state.catalog.budgets
        tenant = f"{_TENANT}{job.request.contract.tenant}"
        found = [(key, budgets[key]) for key in ("fleet", f"task:{job.task}", tenant) if key in budgets]
        if tenant not in budgets and EACH_TENANT in budgets:
            found.append((tenant, budgets[EACH_TENANT]))
        return found

    def _account(self, key: str, budget: Budget, now: float) -> Account:
        accounts = self.state.accounts
        account = accounts.get(key)
        if account is None:
            if len(accounts) >= _MOST_ACCOUNTS:
                self._tidy(now)
            account = accounts[key] = Account(now)
        account.turn(budget, now)
        return account

    def _tidy(self, now: float) -> None:
        budgets = self.state.catalog.budgets
        for key, account in list(self.state.accounts.items()):
            budget = budgets.get(key) or budgets.get(EACH_TENANT)
            if not account.reserved and (budget is None or now >= account.since + budget.per_s):
                del self.state.accounts[key]
