"""The queue of one task: classes with bounded starvation, tenants in turn, earliest due first.

Rules this module keeps:

1. Across classes: `policy.shares` (strict order, with a guaranteed share of rows).
2. Inside a class: the tenant that has been served least goes first (start-time fair queueing, Goyal et al.,
   1996); a tenant that comes back after a pause starts from the present, not from its unused past.
3. Inside a tenant: earliest due first; ties go to the earlier arrival.
4. Counters are exact: `rows` is the sum over what is queued, always.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterator

from semaforo.core.state import ClassQueue, Entry, Job, Lane, TaskQueue, TenantQueue
from semaforo.policy import shares


def push(queue: TaskQueue, lane: Lane, job: Job) -> None:
    """Add a waiting job; O(log n) comparisons."""
    klass = queue.classes[job.klass]
    name = job.request.contract.tenant
    tenant = klass.tenants.get(name)
    if tenant is None:
        tenant = klass.tenants[name] = TenantQueue(virtual=klass.clock)
    elif not tenant.rows and tenant.virtual < klass.clock:
        tenant.virtual = klass.clock
    entries = tenant.lanes.get(lane.id)
    if entries is None:
        entries = tenant.lanes[lane.id] = []
    insort(entries, (job.due, job.seq, job.request.id))
    tenant.rows += job.rows
    queue.rows[job.klass] += job.rows
    lane.rows += job.rows


def remove(queue: TaskQueue, lane: Lane, job: Job) -> None:
    """Take a waiting job out, wherever it stands."""
    klass = queue.classes[job.klass]
    name = job.request.contract.tenant
    tenant = klass.tenants[name]
    entries = tenant.lanes[lane.id]
    del entries[bisect_left(entries, (job.due, job.seq))]
    if not entries:
        del tenant.lanes[lane.id]
    tenant.rows -= job.rows
    queue.rows[job.klass] -= job.rows
    lane.rows -= job.rows
    if not queue.rows[job.klass]:
        # Nobody waits, so nobody is ahead: all start anew together.
        if len(klass.tenants) > 1:
            klass.tenants.clear()
            klass.clock = 0.0
    elif not tenant.rows:
        _forget_idle(klass)


def serve(queue: TaskQueue, lane: Lane, job: Job) -> None:
    """Take a job out because it runs now, and charge its class and its tenant for it."""
    shares.charge(queue.debts, queue.rows, job.klass, job.rows)
    klass = queue.classes[job.klass]
    tenant = klass.tenants[job.request.contract.tenant]
    klass.clock = tenant.virtual
    tenant.virtual += job.rows
    remove(queue, lane, job)


def _forget_idle(klass: ClassQueue) -> None:
    # A tenant with nothing queued and no lead over the clock carries no information.
    if len(klass.tenants) > 64:
        for name in [n for n, t in klass.tenants.items() if not t.rows and t.virtual <= klass.clock]:
            del klass.tenants[name]


def in_order(queue: TaskQueue, lanes: Collection[int]) -> Iterator[Entry]:
    """Yield what may be served from these lanes, best first, without taking anything out.

    The first entry of the first tenant of the first class comes first; an entry that the caller passes over
    is followed by the next of its own lane and tenant, then the other tenants, then the other classes.
    """
    for c in shares.order(queue.debts, queue.rows):
        tenants = queue.classes[c].tenants
        if len(tenants) == 1:
            turn: list[TenantQueue] = list(tenants.values())
        else:
            waiting = [(t.virtual, n) for n, t in tenants.items() if t.rows]
            waiting.sort()
            turn = [tenants[n] for _, n in waiting]
        for tenant in turn:
            if len(tenant.lanes) == 1:
                (only,) = tenant.lanes
                if only in lanes:
                    yield from tuple(tenant.lanes[only][:LOOK])
            else:
                heads = [e for lane, es in tenant.lanes.items() if lane in lanes for e in es[:LOOK]]
                heads.sort()
                yield from heads


LOOK = 64
"""How far into one tenant's lane a replica looks for work it can do in time."""


def rows_before(queue: TaskQueue, klass: int, due: float) -> float:
    """Estimate the waiting rows of a class that are due before `due`; O(lanes · log n)."""
    total = queue.rows[klass]
    if not total or len(queue.classes[klass].tenants) > LOOK:
        return float(total)
    before = count = 0
    for tenant in queue.classes[klass].tenants.values():
        for entries in tenant.lanes.values():
            before += bisect_left(entries, (due,))
            count += len(entries)
    return total * before / count


def last_of_lowest(queue: TaskQueue, below: int) -> str | None:
    """Return the request to shed for one of class `below`: the last due of the lowest class that has work."""
    for c in range(len(queue.rows) - 1, below, -1):
        if queue.rows[c]:
            ends = (es[-1] for t in queue.classes[c].tenants.values() for es in t.lanes.values() if es)
            return max(ends)[2]
    return None
