"""The supply side: variants, their replicas, who has a free slot, and when the next one will.

Rules this module keeps:

1. A replica stands in its variant's idle index exactly while it may take work: ready, not draining, not away,
   with a free slot. Entries carry a version; one that is out of date is void and dropped when it surfaces. One
   whose device has given its turn to another is dropped as it surfaces, and put back when the turn is over.
2. The index is ordered by predicted finish; a choice looks at eight candidates at most.
3. Exclusive replicas of one device share one turn: only one of them runs at a time.
"""

from __future__ import annotations

from heapq import heappop, heappush

from semaforo.core.state import Batch, ReplicaBook, State, Timer, VariantBook
from semaforo.entities import BatchProfile, Profile, ReplicaView, StreamProfile, Variant
from semaforo.policy import balance, breaker
from semaforo.policy.batch import Fit, fit_from, worthwhile_rows

EXPECT_BACK_S = 30.0
_AFFINITY_KEYS = 8192


def new_book(variant: Variant) -> VariantBook:
    """Return the book of a variant that comes into service."""
    profile = variant.profile
    if isinstance(profile, StreamProfile):
        usual = 256.0
        return VariantBook(Fit(), variant.task, output_tokens=usual, stream_s=profile.seconds(256, usual))
    return VariantBook(fit_from(profile), variant.task, work=fit_from(profile))


class Supply:
    """Operations on the variants and replicas of a `State`; holds nothing of its own."""

    def __init__(self, state: State) -> None:
        self.state = state

    # --- coming and going ------------------------------------------------------------------------------

    def ready(self, view: ReplicaView, profile: Profile | None, now: float) -> None:
        """Take a replica into service; a replica that is known already is replaced."""
        state = self.state
        if view.id in state.replicas:
            self.gone(view.id, now, expected=False)
        book = state.variants[view.variant]
        if isinstance(profile, BatchProfile) and not book.ready:
            book.fit, book.work = fit_from(profile), fit_from(profile)
        replica = ReplicaBook(
            view.variant,
            view.device,
            view.slots,
            view.exclusive,
            view.shared,
            view.max_rows,
            ahead=view.ahead,
        )
        state.replicas[view.id] = replica
        if view.exclusive:
            state.devices.setdefault(view.device, []).append(view.id)
        book.ready += 1
        book.slots += view.slots
        book.expected_until = 0.0
        self.offer(view.id, replica)

    def gone(self, replica_id: str, now: float, *, expected: bool) -> ReplicaBook | None:
        """Take a replica out; if it is `expected` back, requests wait for it for a while."""
        state = self.state
        replica = state.replicas.pop(replica_id, None)
        if replica is None:
            return None
        book = state.variants[replica.variant]
        if not replica.draining:
            book.ready -= 1
            book.slots -= replica.slots
        if expected:
            book.expected_until = now + EXPECT_BACK_S
        if replica.exclusive:
            state.devices[replica.device].remove(replica_id)
            if state.turns.get(replica.device) == replica_id:
                self._pass_turn(replica.device)
        return replica

    def drain(self, replica_id: str) -> None:
        """Give a replica no new work from now on."""
        replica = self.state.replicas[replica_id]
        if not replica.draining:
            replica.draining = True
            replica.index = self.state.next_seq()
            book = self.state.variants[replica.variant]
            book.ready -= 1
            book.slots -= replica.slots

    def send_away(self, replica_id: str, replica: ReplicaBook, until: float, *, ejected: bool) -> None:
        """Keep a replica out of the index until a moment, or longer if it is away for longer already."""
        replica.away_until = until = max(until, replica.away_until)
        replica.ejected = replica.ejected or ejected
        replica.index = self.state.next_seq()
        heappush(self.state.timers, (until, self.state.next_seq(), int(Timer.REPLICA), replica_id))

    def return_from_away(self, replica_id: str, replica: ReplicaBook) -> None:
        """Let a replica that was away take work again; after an ejection on a ramp, one row first."""
        replica.away_until = 0.0
        if replica.ejected:
            replica.ejected = False
            replica.ramp = 1
            replica.failures = breaker.FAILURES - 1
        self.offer(replica_id, replica)

    # --- the index -------------------------------------------------------------------------------------

    def offer(self, replica_id: str, replica: ReplicaBook) -> None:
        """Put a replica into the idle index if it may take work."""
        if replica.in_flight >= replica.slots or replica.draining or replica.away_until:
            return
        state = self.state
        replica.index = seq = state.next_seq()
        key = round(replica.speed * (1.0 + replica.in_flight / replica.slots), 1)
        if replica.ramp:
            key += 1.0
        heappush(state.variants[replica.variant].idle, (key, seq, replica_id, seq))

    def has_free(self, book: VariantBook) -> bool:
        """Tell whether some replica of the variant could take work now; amortised O(log n)."""
        idle, replicas = book.idle, self.state.replicas
        while idle:
            _, _, rid, version = idle[0]
            replica = replicas.get(rid)
            if replica is None or replica.index != version:
                heappop(idle)
                continue
            if replica.exclusive and replica.device in self.state.turns:
                self._park(idle)
                continue
            return True
        return False

    def _park(self, idle: list[tuple[float, int, str, int]]) -> None:
        # The replica on top may not run before its device is free: `_pass_turn` puts it back.
        self.state.replicas[heappop(idle)[2]].index = -1

    def _pass_turn(self, device: str, last: str = "") -> None:
        state = self.state
        state.turns.pop(device, None)
        for other in state.devices[device]:
            replica = state.replicas[other]
            if replica.index < 0 and other != last:
                self.offer(other, replica)

    def free_replicas(self, book: VariantBook) -> list[str]:
        """Return some replicas with a free slot (`has_free` must hold), the best one first, eight at most."""
        found = []
        for _, _, rid, version in book.idle[: balance.MOST]:
            replica = self.state.replicas.get(rid)
            if replica is not None and replica.index == version and self._free(replica):
                found.append(rid)
        return found

    def take(self, book: VariantBook, variant_id: str, affinity: str, avoid: str, now: float) -> str:
        """Pick a replica with a free slot (`has_free` must hold) and return its id.

        The replica stays in the index; `begin` takes it out. O(log n), eight candidates at most.
        """
        idle, replicas = book.idle, self.state.replicas
        top = idle[0]
        if not affinity and not avoid and not replicas[top[2]].shared:
            return top[2]
        state = self.state
        known = state.affinity.get(f"{variant_id} {affinity}", "") if affinity else ""
        entries: list[tuple[float, int, str, int]] = []
        candidates: list[balance.Candidate] = []
        while idle and len(entries) < balance.MOST:
            entry = idle[0]
            replica = replicas.get(entry[2])
            if replica is None or replica.index != entry[3]:
                heappop(idle)
                continue
            if replica.exclusive and replica.device in state.turns:
                self._park(idle)
                continue
            heappop(idle)
            entries.append(entry)
            if entry[2] != avoid:
                candidates.append(self._candidate(entry[2], replica, book, known, now))
        for entry in entries:
            heappush(idle, entry)
        if known and all(c.replica != known for c in candidates):
            replica = replicas.get(known)
            if replica and replica.variant == variant_id and known != avoid and self._free(replica):
                candidates.append(self._candidate(known, replica, book, known, now))
        if not candidates:
            return top[2]
        state.chance = balance.next_chance(state.chance)
        return candidates[balance.pick(candidates, state.chance)].replica

    def _free(self, replica: ReplicaBook) -> bool:
        if replica.exclusive and replica.device in self.state.turns:
            return False
        return replica.in_flight < replica.slots and not replica.draining and not replica.away_until

    def _candidate(
        self, rid: str, replica: ReplicaBook, book: VariantBook, known: str, now: float
    ) -> balance.Candidate:
        wait = replica.free_at - now if replica.shared and replica.free_at > now else 0.0
        service = (book.stream_s or book.fit.seconds(1)) * replica.speed
        stale = replica.shared and now - replica.reported_at > balance.STALE_S
        finish = wait + service * (1.0 + replica.in_flight / replica.slots)
        return balance.Candidate(rid, finish, stale, rid == known)

    def remember(self, variant_id: str, affinity: str, replica_id: str) -> None:
        """Note that a replica has served an affinity key; the oldest of too many keys is forgotten."""
        memory = self.state.affinity
        key = f"{variant_id} {affinity}"
        memory.pop(key, None)
        memory[key] = replica_id
        if len(memory) > _AFFINITY_KEYS:
            del memory[next(iter(memory))]

    # --- running ---------------------------------------------------------------------------------------

    def begin(self, number: int, batch: Batch) -> None:
        """Account a batch that starts on its replica."""
        state = self.state
        replica = state.replicas[batch.replica]
        replica.in_flight += 1
        replica.rows += batch.rows
        replica.tokens += batch.tokens
        replica.batch = number
        state.batches[number] = batch
        book = state.variants[batch.variant]
        heappush(book.busy, (batch.started + batch.expected_s, number))
        if len(book.busy) > 64 and len(book.busy) > 4 * book.slots:
            book.busy = [e for e in book.busy if e[1] in state.batches]
            book.busy.sort()
        if replica.exclusive:
            state.turns[replica.device] = batch.replica
        replica.index = -1
        self.offer(batch.replica, replica)

    def follow(self, number: int, batch: Batch) -> None:
        """Account a batch that is handed over while another runs on its replica."""
        replica = self.state.replicas[batch.replica]
        running = replica.batch
        self.state.batches[running].followed = True
        self.begin(number, batch)
        replica.batch, replica.next_batch = running, number

    def end(self, number: int, now: float) -> tuple[Batch | None, ReplicaBook | None]:
        """Account a batch that has ended; (None, None) when it is not known (any more)."""
        state = self.state
        batch = state.batches.pop(number, None)
        if batch is None:
            return None, None
        replica = state.replicas.get(batch.replica)
        if replica is not None:
            replica.in_flight -= 1
            replica.rows -= batch.rows
            replica.tokens -= batch.tokens
            if replica.next_batch:
                self._follow_up(number, replica, now)
            if replica.exclusive:
                self._pass_turn(replica.device, batch.replica)
        return batch, replica

    def _follow_up(self, ended: int, replica: ReplicaBook, now: float) -> None:
        """Note that the batch behind another one begins, or that it went away before it could."""
        state = self.state
        if ended == replica.next_batch:
            left = state.batches[replica.batch]
            left.followed = False
        else:
            replica.batch = replica.next_batch
            left = state.batches[replica.batch]
            left.started = now
        replica.next_batch = 0
        heappush(state.variants[replica.variant].busy, (left.started + left.expected_s, replica.batch))

    # --- predictions -----------------------------------------------------------------------------------

    def first_free_s(self, book: VariantBook, now: float) -> float:
        """Predict the seconds until a slot of the variant is free; infinite when no replica is ready."""
        if not book.ready:
            return float("inf")
        if self.has_free(book):
            return 0.0
        busy, batches = book.busy, self.state.batches
        while busy:
            end, number = busy[0]
            batch = batches.get(number)
            if batch is None or batch.followed:
                heappop(busy)
                continue
            return end - now if end > now else 0.0
        # Nothing is free and nothing runs: every replica is away, or another has the turn.
        away = [r.away_until for r in self.state.replicas.values() if r.away_until and self._of(r, book)]
        return max(0.0, min(away) - now) if len(away) >= book.ready else 0.0

    def _of(self, replica: ReplicaBook, book: VariantBook) -> bool:
        return self.state.variants[replica.variant] is book and not replica.draining

    def rate(self, book: VariantBook, variant: Variant, waiting_rows: int) -> float:
        """Predict the rows per second that all replicas of the variant serve together under this backlog."""
        if not book.slots:
            return 0.0
        if book.stream_s:
            return book.slots / book.stream_s
        fit, rows = book.fit, waiting_rows // book.slots
        if rows > 1:
            most = worthwhile_rows(fit, variant.max_rows)
            rows = most if most < rows else rows
        else:
            rows = 1
        seconds = fit.base + fit.row * rows
        return book.slots * rows / seconds if seconds > 0.0 else float("inf")
