"""An independent model of what the dispatcher may do: it sees events, times and effects, and nothing else.

It keeps its own account of requests, batches and replicas, made from the contract between core and driver, and
raises `Violation` at the first effect, or missing effect, that breaks a rule. It never reads the core's state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import inf

import msgspec

from property.account import AHEAD_MOST_S, EPS, MAX_TRIES, MAX_WAIT_S, Asked, Standing, Work, expect, why_not
from property.between import check_between
from semaforo.catalog.state import Catalog
from semaforo.core.effects import (
    Believed,
    Cancel,
    Decided,
    DispatcherEffect,
    Drained,
    Ejected,
    Finish,
    Release,
    Run,
    Score,
)
from semaforo.core.events import (
    Arrived,
    BatchDone,
    BatchFailed,
    Busy,
    Cancelled,
    DispatcherEvent,
    DrainReplica,
    FirstChunk,
    FleetChanged,
    Limits,
    ReplicaGone,
    ReplicaReady,
    Scored,
    Tick,
)
from semaforo.core.history import same
from semaforo.core.outcome import BUSY_PAUSE_S
from semaforo.entities import Profile, Request, StreamProfile, TaskType, Variant


class Model:
    """Watches one dispatcher.

    Args:
        exact: Batches take exactly what the catalog's profiles say, so the model can tell what is in time.
    """

    def __init__(self, *, exact: bool = False) -> None:
        self.exact = exact
        self.catalog = Catalog()
        self.measured: dict[str, Profile] = {}
        self.asked: dict[str, Asked] = {}
        self.replicas: dict[str, Standing] = {}
        self.work: dict[int, Work] = {}
        self.outcomes: Counter[str] = Counter()
        self.arrivals = 0
        self.conflicts = 0
        self.hedged_tasks: set[str] = set()
        self._last_batch = 0
        self._order = 0
        self.falling: set[str] = set()
        self.believed: dict[str, float] = {}

    # --- what may be asked about the world -------------------------------------------------------------

    def waiting(self) -> list[Asked]:
        """Return the requests that wait, in order of arrival."""
        return [a for a in self.asked.values() if a.waiting]

    def open_requests(self) -> list[str]:
        """Return the ids of requests that have no answer yet."""
        return [i for i, a in self.asked.items() if not a.outcome]

    def may_serve(self, variant: Variant, asked: Asked) -> bool:
        """Tell whether the contract allows it."""
        return not why_not(self.catalog, self.as_believed(variant), asked.request)

    def as_believed(self, variant: Variant) -> Variant:
        """Return a variant with the quality that feedback has shown."""
        quality = self.believed.get(variant.id)
        return variant if quality is None else msgspec.structs.replace(variant, quality=quality)

    def quality(self, variant: Variant, asked: Asked) -> float:
        """Return what a variant is likely to be worth on a request."""
        usual = self.as_believed(variant).quality
        return min(1.0, max(0.0, (0.5 if usual is None else usual) + asked.gain.get(variant.id, 0.0)))

    def eligible(self, asked: Asked) -> list[Variant]:
        """Return the variants in the catalog that the contract allows."""
        return [v for v in self.catalog.variants.values() if self.may_serve(v, asked)]

    def is_open(self, variant: Variant, asked: Asked) -> bool:
        """Tell whether the operator's preference keeps this variant for ordinary times too."""
        among = self.eligible(asked)
        if any(v.cost.metered for v in among):
            return False
        best = max(self.quality(v, asked) for v in among)
        mine = self.quality(variant, asked)
        keep = {"cost": asked.task.prefer.keep_quality, "quality": 0.99, "weights": 0.0}[
            asked.task.prefer.goal
        ]
        return mine >= keep * best

    def seconds(self, variant: Variant, rows: int) -> float:
        """Return the service time of a batch by the catalog's profile."""
        profile = variant.profile
        assert not isinstance(profile, StreamProfile)
        return profile.seconds(rows)

    # --- one event ---------------------------------------------------------------------------------------

    def observe(
        self, event: DispatcherEvent, now: float, effects: Sequence[DispatcherEffect], wake: float | None
    ) -> None:
        """Check what an event has caused; `wake` is when the dispatcher wants a `Tick` next."""
        self.falling = self._caused_by(event.request) if isinstance(event, Cancelled) else set()
        ended = self._take_in(event, now)
        for effect in effects:
            if isinstance(effect, Run):
                self._run(effect, now)
            elif isinstance(effect, Finish):
                self._finish(effect, event, ended, now)
            elif isinstance(effect, Release):
                self._release(effect)
            elif isinstance(effect, Cancel):
                self._cancel(effect)
            elif isinstance(effect, Ejected):
                expect(effect.replica in self.replicas, "ejected", f"{effect} of an unknown replica")
                self._away(effect.replica, now + effect.for_s)
                self.replicas[effect.replica].returning = True
            elif isinstance(effect, Drained):
                standing = self.replicas.get(effect.replica)
                expect(
                    standing and standing.draining and not standing.live and not standing.drained,
                    "drained", f"{effect} while {standing}",
                )  # fmt: skip
                assert standing is not None
                standing.drained = True
            elif isinstance(effect, Score):
                self.asked[effect.request].scoring = True
                self.asked[effect.request].scored_by = effect.by
            elif isinstance(effect, Believed):
                self.believed[effect.variant] = effect.quality
            elif isinstance(effect, Decided):
                self._decided(effect)
        for asked in self.asked.values():
            if not asked.waiting:
                asked.waiting_since = inf
            elif asked.waiting_since == inf:
                asked.waiting_since = now
        check_between(self, event, now, wake)

    def _take_in(self, event: DispatcherEvent, now: float) -> Work | None:
        if isinstance(event, Arrived):
            self._arrived(event.request, now)
        elif isinstance(event, BatchDone | BatchFailed | Busy):
            work = self.work.get(event.batch)
            if work is not None:
                self._ended(event.batch, event, now)
            return work
        elif isinstance(event, FirstChunk):
            if event.batch in self.work:
                for member in self.work[event.batch].members:
                    self.asked[member].started |= self.asked[member].request.stream
        elif isinstance(event, Scored):
            if event.request in self.asked:
                if self.asked[event.request].scoring:
                    self.asked[event.request].gain = dict(event.gain)
                    self.asked[event.request].looked_at = bool(event.context)
                self.asked[event.request].scoring = False
        elif isinstance(event, Tick):
            for standing in self.replicas.values():
                if standing.away_until <= now:
                    standing.away_until = 0.0
            for asked in self.asked.values():
                if asked.scoring and now >= asked.scored_by:
                    asked.scoring = False
        elif isinstance(event, FleetChanged):
            self.believed = {v: q for v, q in self.believed.items() if same(v, self.catalog, event.catalog)}
            # What was measured of an artefact stays true of it, whatever a new file says.
            old, new = self.catalog.templates, event.catalog
            self.measured = {
                name: p
                for name, p in self.measured.items()
                if name in new.variants and old.get(name) == new.templates.get(name)
            }
            self.catalog = new
            for name, profile in self.measured.items():
                self._measure(name, profile)
            for asked in self.asked.values():
                asked.task = self._task(asked.request) or asked.task
            self.hedged_tasks |= {t.name for t in event.catalog.tasks.values() if t.hedge > 0}
        elif isinstance(event, ReplicaReady):
            self._ready(event, now)
        elif isinstance(event, ReplicaGone):
            self._gone(event.replica, now)
        elif isinstance(event, DrainReplica):
            if event.replica in self.replicas:
                self.replicas[event.replica].draining = True
        elif isinstance(event, Limits) and event.replica in self.replicas:
            pause = event.retry_after_s
            if not pause and 0 in (event.requests_left, event.tokens_left):
                pause = event.reset_s
            if pause:
                self._away(event.replica, now + pause)
        return None

    def _arrived(self, request: Request, now: float) -> None:
        self.arrivals += 1
        if request.id in self.asked:
            self.conflicts += 1
            return
        task = self._task(request)
        seconds = request.contract.deadline_s
        if seconds is None and task is not None:
            seconds = task.deadline_s
        deadline = inf if seconds is None else now + seconds
        if request.step is not None and request.step.deadline_at is not None:
            deadline = min(deadline, request.step.deadline_at)
        self._order += 1
        self.asked[request.id] = Asked(request, task or TaskType(""), now, deadline, self._order)

    def _task(self, request: Request) -> TaskType | None:
        name = self.catalog.aliases.get(request.target, request.target)
        of_model = [v.task for v in self.catalog.variants.values() if v.model == name]
        return self.catalog.tasks.get(name) or self.catalog.tasks.get(of_model[0] if of_model else "")

    def _ready(self, event: ReplicaReady, now: float) -> None:
        view = event.replica
        if view.variant not in self.catalog.variants:
            return
        self._gone(view.id, now)
        self.replicas[view.id] = Standing(view)
        if event.profile is not None:
            self.measured[view.variant] = event.profile
            self._measure(view.variant, event.profile)

    def _measure(self, name: str, profile: Profile) -> None:
        # What was measured counts from now on, as the catalog's own profile would.
        variants = dict(self.catalog.variants)
        old = variants[name]
        fields = {f: getattr(old, f) for f in old.__struct_fields__} | {"profile": profile}
        variants[name] = Variant(**fields)
        fields = {f: getattr(self.catalog, f) for f in self.catalog.__struct_fields__} | {
            "variants": variants
        }
        self.catalog = Catalog(**fields)

    def _gone(self, replica: str, now: float) -> None:
        standing = self.replicas.get(replica)
        if standing is not None:
            for number in sorted(standing.live):
                self._ended(number, BatchFailed(number, "crash"), now)
            del self.replicas[replica]

    def _ended(self, number: int, event: BatchDone | BatchFailed | Busy, now: float) -> None:
        work = self.work.pop(number)
        standing = self.replicas[work.replica]
        standing.live.discard(number)
        for behind in standing.live:
            if standing.view.ahead and behind > number:
                self.work[behind].started = now
        if isinstance(event, Busy):
            self._away(work.replica, now + (event.retry_after_s or BUSY_PAUSE_S))
        elif (
            isinstance(event, BatchFailed) and event.kind in ("error", "upstream") and event.retry_after_s > 0
        ):
            if not work.cancelled:
                self._away(work.replica, now + event.retry_after_s)
        elif isinstance(event, BatchDone):
            standing.returning = False
        for member in work.members:
            asked = self.asked[member]
            asked.live.discard(number)
            if isinstance(event, BatchFailed) and not asked.live:
                asked.failures += 1
                asked.failed_on = work.replica
                single = len(work.members) == 1
                asked.failures_alone += single
                asked.alone = asked.alone or (
                    not single and (asked.request.idempotent or event.kind == "invalid")
                )
                lost = not asked.request.idempotent and event.kind in ("crash", "upstream")
                asked.final = asked.final or asked.started or lost or (event.kind == "invalid" and single)

    def _away(self, replica: str, until: float) -> None:
        standing = self.replicas[replica]
        standing.away_until = max(standing.away_until, until)

    # --- effects -----------------------------------------------------------------------------------------

    def _decided(self, effect: Decided) -> None:
        asked = self.asked.get(effect.request)
        if asked is not None and asked.looked_at:
            # What was learned of requests like it is the dispatcher's word.
            for seen in effect.considered:
                variant = self.catalog.variants.get(seen.variant)
                if variant is not None and not seen.ruled_out:
                    usual = self.as_believed(variant).quality
                    asked.gain[seen.variant] = seen.quality - (0.5 if usual is None else usual)
        if asked is not None and effect.pick:
            share = asked.task.explore.share
            if effect.reason == "tried":
                expect(effect.propensity <= share + EPS, "share", f"{effect} tries more than {share:g}")
            else:
                expect(effect.propensity >= 1.0 - share - EPS, "share", f"{effect} leaves out too much")
        if effect.pick and effect.pick in self.catalog.variants and effect.request in self.asked:
            picked = self.as_believed(self.catalog.variants[effect.pick])
            why = why_not(self.catalog, picked, self.asked[effect.request].request)
            expect(not why, "contract", f"{effect.request} was given to {effect.pick} in spite of its {why}")

    def _run(self, effect: Run, now: float) -> None:
        number, name = effect.batch, effect.replica
        expect(number > self._last_batch, "numbers", f"batch {number} after {self._last_batch}")
        self._last_batch = number
        standing = self.replicas.get(name)
        expect(standing is not None, "replica", f"{effect} on a replica that is not in service")
        assert standing is not None
        view = standing.view
        expect(not standing.draining, "drain", f"{effect} on a draining replica")
        expect(
            standing.away_until <= now,
            "away",
            f"{effect} on a replica that is away until {standing.away_until}",
        )
        start = now
        if view.ahead and view.slots == 1 and len(standing.live) == 1:
            start = self._follows(effect, standing, now)
        else:
            expect(
                len(standing.live) < view.slots,
                "slots",
                f"{effect} on a replica whose {view.slots} slots are full",
            )
        if view.exclusive:
            others = [s for s in self.replicas.values() if s.view.exclusive and s.view.device == view.device]
            expect(
                not any(s.live for s in others),
                "turn",
                f"{effect} while another has the turn of {view.device}",
            )
        variant = self.catalog.variants.get(view.variant)
        expect(variant is not None, "contract", f"{effect} on a variant that is not in the catalog")
        assert variant is not None
        members = [self.asked.get(m) for m in effect.members]
        expect(members and all(members), "members", f"{effect} has members that never arrived")
        expect(len(set(effect.members)) == len(members), "members", f"{effect} holds a request twice")
        asked = [m for m in members if m is not None]
        for one in asked:
            self._member(one, effect, variant, standing, now)
        rows = sum(a.rows for a in asked)
        expect(rows == effect.rows, "rows", f"{effect} holds {rows} rows")
        expect(
            rows <= variant.max_rows or len(asked) == 1, "rows", f"{effect} is over {variant.max_rows} rows"
        )
        expect(len({a.request.ref.shape for a in asked}) == 1, "shape", f"{effect} mixes shapes")
        if len(asked) > 1:
            expect(not any(a.alone for a in asked), "alone", f"{effect}: a member's last batch failed")
            expect(not isinstance(variant.profile, StreamProfile), "rows", f"{effect} holds several streams")
            expect(not standing.returning, "ramp", f"{effect} on a replica that has just come back")
        deadline = min(a.deadline for a in asked)
        told = inf if effect.deadline is None else effect.deadline
        expect(deadline == told, "deadline", f"{effect} has the deadline {deadline}")
        expect(now <= deadline, "deadline", f"{effect} begins after a member's deadline")
        if self.exact and not isinstance(variant.profile, StreamProfile):
            end = start + self.seconds(variant, rows)
            expect(end <= deadline + 1e-6, "deadline", f"{effect} would end at {end}")
        for one in asked:
            one.live.add(number)
            one.runs += 1
            one.scoring = False
        standing.live.add(number)
        self.work[number] = Work(name, view.variant, effect.members, rows, start)

    def _follows(self, effect: Run, standing: Standing, now: float) -> float:
        """Check a batch that is handed over while another runs; return when it begins."""
        running = self.work[next(iter(standing.live))]
        variant = self.catalog.variants[standing.view.variant]
        ahead_s = self.seconds(variant, effect.rows)
        if self.exact:
            expect(
                ahead_s <= AHEAD_MOST_S + 1e-6, "ahead", f"{effect} takes {ahead_s} s and cannot be overtaken"
            )
        return max(now, running.started + self.seconds(variant, running.rows))

    def _member(self, one: Asked, effect: Run, variant: Variant, standing: Standing, now: float) -> None:
        rid, request = one.request.id, one.request
        expect(not one.outcome, "twice", f"{effect}: {rid} is already {one.outcome}")
        why = why_not(self.catalog, self.as_believed(variant), request)
        expect(not why, "contract", f"{effect}: {rid} in spite of its {why}")
        expect(not one.final, "retry", f"{effect}: {rid} may not be tried again")
        expect(
            one.failures_alone < MAX_TRIES and one.failures <= MAX_TRIES,
            "retry", f"{effect}: {rid} has failed {one.failures} times",
        )  # fmt: skip
        if one.live:
            (first,) = one.live if len(one.live) == 1 else (0,)
            hedged = first and one.task.name in self.hedged_tasks and request.idempotent and not one.started
            apart = first and self.work[first].replica != standing.view.id
            expect(
                hedged and apart and len(effect.members) == 1, "hedge", f"{effect}: {rid} runs in {one.live}"
            )

    def _finish(self, effect: Finish, event: DispatcherEvent, ended: Work | None, now: float) -> None:
        rid = effect.request
        if effect.code == "conflict":
            expect(isinstance(event, Arrived) and event.request.id == rid, "twice", f"{effect} on {event}")
            self.conflicts -= 1
            return
        asked = self.asked.get(rid)
        expect(asked is not None, "unknown", f"{effect} of a request that never arrived")
        assert asked is not None
        expect(not asked.outcome, "twice", f"{effect}, but it is already {asked.outcome}")
        expect(0.0 <= effect.retry_after_s < inf, "wait", f"{effect} tells no time to wait")
        asked.outcome = outcome = effect.outcome
        self.outcomes[outcome] += 1
        if outcome == "refused":
            fresh = isinstance(event, Arrived) and event.request.id == rid
            expect(fresh and not asked.runs, "refused", f"{effect} after it was admitted")
        elif outcome == "done":
            ok = isinstance(event, BatchDone) and event.batch == effect.batch and ended is not None
            expect(ok and ended and rid in ended.members, "done", f"{effect} on {event}")
            assert ended is not None
            assert isinstance(event, BatchDone)
            expect(rid not in {f[0] for f in event.failed}, "done", f"{effect}, but this member failed")
            expect(
                (effect.variant, effect.replica) == (ended.variant, ended.replica),
                "done",
                f"{effect} of {ended}",
            )
        elif outcome == "cancelled":
            expect(
                rid in self.falling,
                "cancelled",
                f"{effect} on {event}",
            )
        elif outcome == "shed":
            if isinstance(event, Arrived):
                higher = event.request.contract.priority < asked.request.contract.priority
                expect(higher, "shed", f"{effect} for work of its own class or below")
        elif outcome == "expired" and asked.deadline == inf:
            expect(now - asked.arrived >= MAX_WAIT_S - EPS, "expired", f"{effect} without a deadline")
        elif outcome == "expired" and asked.live:
            expect(now >= asked.deadline, "expired", f"{effect} while it runs and is in time")
        elif outcome == "expired" and self.exact and isinstance(event, Tick | BatchDone):
            least = min((self.seconds(v, asked.rows) for v in self._served(asked)), default=inf)
            expect(now + least >= asked.deadline - 1e-6, "expired", f"{effect} at {now}, least {least}")
        if outcome != "done":
            expect(effect.code and effect.message, "words", f"{effect} says nothing to the caller")

    def _caused_by(self, root: str) -> set[str]:
        """Return the open requests that fall when `root` is cancelled: itself, its steps, theirs, and so on."""
        steps = {i: self.asked[i].request.step for i in self.open_requests()}
        found, more = {root}, {root}
        while more:
            more = {i for i, step in steps.items() if step and step.parent in more} - found
            found |= more
        return found & set(steps)

    def _served(self, asked: Asked) -> list[Variant]:
        in_service = {s.view.variant for s in self.replicas.values() if not s.draining}
        return [v for v in self.eligible(asked) if v.id in in_service]

    def _release(self, effect: Release) -> None:
        asked = self.asked.get(effect.request)
        expect(asked is not None, "release", f"{effect} of a request that never arrived")
        assert asked is not None
        expect(asked.outcome, "release", f"{effect} before its answer")
        expect(not asked.live, "release", f"{effect} while {asked.live} still need it")
        expect(not asked.released, "release", f"{effect} twice")
        asked.released = True

    def _cancel(self, effect: Cancel) -> None:
        work = self.work.get(effect.batch)
        expect(
            work is not None and work.replica == effect.replica,
            "cancel",
            f"{effect} of work that does not run",
        )
        assert work is not None
        expect(not work.cancelled, "cancel", f"{effect} twice")
        wanted = [m for m in work.members if not self.asked[m].outcome]
        expect(not wanted, "cancel", f"{effect} although {wanted} want it")
        work.cancelled = True

    def forget_finished(self) -> None:
        """Drop requests that are over, so that long runs stay fast."""
        for rid in [i for i, a in self.asked.items() if a.released]:
            del self.asked[rid]

    def check_over(self) -> None:
        """Check that everything that arrived has been answered, and that the sums agree."""
        expect(not self.open_requests(), "answers", f"never answered: {self.open_requests()[:5]}")
        unreleased = [i for i, a in self.asked.items() if not a.released]
        expect(not unreleased, "release", f"never released: {unreleased[:5]}")
