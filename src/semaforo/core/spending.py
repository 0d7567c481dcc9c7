"""Budgets in the life of a request: it reserves the most it can cost before it waits, and settles at its end.

Rules this module keeps:

1. A request holds one reservation, however often it is tried: it is adjusted, never added to.
2. The steps of a graph pay, each for itself; the graph pays nothing on top.
3. A variant that costs more, at most, than is left of any budget of the request is ruled out for it, so that the
   request falls back to a cheaper one, local or remote alike.
"""

from __future__ import annotations

from collections.abc import Mapping

from semaforo.core.plan import Choice
from semaforo.core.state import Job, State
from semaforo.entities import Budget
from semaforo.entities.units import show_dollars, show_duration
from semaforo.policy.budget import SLACK, Account

_SURE = 4.0
_MOST_ACCOUNTS = 10_000
EACH_TENANT = "tenant:*"


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
            f"per {show_duration(budget.per_s)} for {whose}"
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

    def settle(self, job: Job, cost: float, now: float) -> None:
        """Give back what a job has reserved, and pay what it has cost."""
        if not job.accounts:
            return
        keys = job.accounts
        self._release(job)
        if cost:
            for key, budget in self._budgets(job):
                if key in keys:
                    self._account(key, budget, now).spent += cost

    def remember(self, accounts: Mapping[str, tuple[float, float]], now: float) -> None:
        """Take up what was spent before a restart: dollars, and the age of the window in seconds."""
        for key, (spent, age_s) in accounts.items():
            own = self.state.accounts.setdefault(key, Account(now))
            own.since = min(own.since, now - float(age_s))
            own.spent += float(spent)

    def _release(self, job: Job) -> None:
        accounts = self.state.accounts
        for key in job.accounts:
            account = accounts.get(key)
            if account is not None:
                left = account.reserved - job.reserved
                account.reserved = left if left > SLACK else 0.0
        job.reserved, job.accounts = 0.0, ()

    def _budgets(self, job: Job) -> list[tuple[str, Budget]]:
        budgets = self.state.catalog.budgets
        tenant = f"tenant:{job.request.contract.tenant}"
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
