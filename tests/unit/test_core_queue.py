"""The queue of one task: order, counts and turns, and that removing works from anywhere."""

from __future__ import annotations

from random import Random

from fleets import ask
from semaforo.core import queue as queues
from semaforo.core.state import Job, Lane, TaskQueue, new_queue
from semaforo.entities import Priority


class Line:
    """A queue with lanes and jobs that are easy to make."""

    def __init__(self) -> None:
        self.queue: TaskQueue = new_queue(0.0, 0.0)
        self.lanes: dict[int, Lane] = {n: Lane(n, "t", (), (), "") for n in range(3)}
        self.jobs: dict[str, Job] = {}

    def push(
        self,
        rid: str,
        due: float,
        *,
        klass: Priority = Priority.NORMAL,
        lane: int = 0,
        rows: int = 1,
        tenant: str = "",
    ) -> None:
        request = ask(rid, rows=rows, priority=klass, tenant=tenant)
        job = Job(request, len(self.jobs), 0.0, due, due, "t", lane, int(klass), rows)
        self.jobs[rid] = job
        queues.push(self.queue, self.lanes[lane], job)

    def order(self, *lanes: int) -> list[str]:
        return [rid for _, _, rid in queues.in_order(self.queue, set(lanes or self.lanes))]

    def take(self, rid: str, *, served: bool = False) -> None:
        job = self.jobs.pop(rid)
        (queues.serve if served else queues.remove)(self.queue, self.lanes[job.lane], job)

    def serve_all(self) -> list[str]:
        found = []
        while order := self.order():
            found.append(order[0])
            self.take(order[0], served=True)
        return found


def test_earliest_due_first_across_lanes_and_ties_by_arrival() -> None:
    line = Line()
    for rid, due, lane in (("a", 3.0, 0), ("b", 1.0, 1), ("c", 1.0, 0), ("d", 2.0, 2)):
        line.push(rid, due, lane=lane)
    assert line.order() == ["b", "c", "d", "a"]
    assert line.order(0) == ["c", "a"]
    assert line.order(1, 2) == ["b", "d"]


def test_classes_in_order() -> None:
    line = Line()
    for rid, klass in (("n", Priority.NORMAL), ("l", Priority.LOW), ("c", Priority.CRITICAL)):
        line.push(rid, 1.0, klass=klass)
    assert line.order() == ["c", "n", "l"]


def test_tenants_take_turns_by_rows() -> None:
    line = Line()
    for n in range(4):
        line.push(f"x{n}", n, tenant="x")
        line.push(f"y{n}", 10 + n, tenant="y", rows=2)
    assert line.serve_all() == ["x0", "y0", "x1", "x2", "y1", "x3", "y2", "y3"]


def test_a_tenant_that_was_away_starts_from_the_present() -> None:
    line = Line()
    for n in range(10):
        line.push(f"x{n}", n, tenant="x")
    for n in range(5):
        line.take(f"x{n}", served=True)
    for n in range(3):
        line.push(f"y{n}", n, tenant="y")
    assert line.serve_all()[:6] in (
        ["y0", "x5", "y1", "x6", "y2", "x7"], ["x5", "y0", "x6", "y1", "x7", "y2"],
        ["y0", "y1", "x5", "y2", "x6", "x7"], ["y0", "x5", "y1", "x6", "x7", "y2"],
    )  # fmt: skip


def test_the_one_to_shed_is_the_last_due_of_the_lowest_class() -> None:
    line = Line()
    line.push("n1", 5.0)
    line.push("n2", 9.0, tenant="y", lane=1)
    line.push("h", 99.0, klass=Priority.HIGH)
    assert queues.last_of_lowest(line.queue, Priority.HIGH) == "n2"
    line.push("l", 1.0, klass=Priority.LOW)
    assert queues.last_of_lowest(line.queue, Priority.HIGH) == "l"
    assert queues.last_of_lowest(line.queue, Priority.LOW) is None


def test_rows_before_a_moment() -> None:
    line = Line()
    for n in range(10):
        line.push(f"q{n}", float(n), lane=n % 2)
    assert queues.rows_before(line.queue, Priority.NORMAL, 4.0) == 4
    assert queues.rows_before(line.queue, Priority.NORMAL, 99.0) == 10
    assert queues.rows_before(line.queue, Priority.LOW, 99.0) == 0


def test_counts_are_exact_whatever_comes_and_goes() -> None:
    rng, line = Random(3), Line()
    for step in range(3000):
        if not line.jobs or rng.random() < 0.55:
            line.push(
                f"q{step}", rng.random(), klass=Priority(rng.randrange(4)), lane=rng.randrange(3),
                rows=rng.randint(1, 5), tenant=f"t{rng.randrange(90)}",
            )  # fmt: skip
        else:
            line.take(rng.choice(list(line.jobs)), served=rng.random() < 0.5)
        for klass in range(4):
            mine = [j for j in line.jobs.values() if j.klass == klass]
            assert line.queue.rows[klass] == sum(j.rows for j in mine)
        for number, lane in line.lanes.items():
            assert lane.rows == sum(j.rows for j in line.jobs.values() if j.lane == number)
    assert sorted(line.serve_all()) != []
    assert line.queue.rows == [0, 0, 0, 0]
    assert sum(len(c.tenants) for c in line.queue.classes) <= 4 * 90


def test_tenants_that_are_gone_are_forgotten() -> None:
    line = Line()
    for n in range(500):
        line.push(f"q{n}", 0.0, tenant=f"t{n}")
        line.take(f"q{n}", served=True)
    assert len(line.queue.classes[Priority.NORMAL].tenants) < 100
