"""The controller: as many replicas as are wanted, back-off, scaling, replacement without a gap."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from fleets import fleet, variant
from semaforo.catalog.state import Catalog, Scaling
from semaforo.core.controller import BACKOFF_MOST_S, BACKOFF_S, STABLE_S, Controller
from semaforo.core.effects import ControllerEffect, StartReplica
from semaforo.core.events import (
    ControllerEvent,
    DrainReplica,
    FleetChanged,
    Load,
    LoadVariant,
    ReplicaFailed,
    ReplicaGone,
    ReplicaReady,
    ReplicaStopped,
    Scale,
    Tick,
    UnloadVariant,
)
from semaforo.entities import ReplicaView
from semaforo.policy import scale


class Post:
    """A controller, the time, and short words for what it does."""

    def __init__(self, least: int = 1, most: int = 1) -> None:
        self.controller = Controller()
        self.now = 0.0
        self.catalog = fleet(variant("m"), scaling=Scaling(least, most))
        self.first = self.tell(FleetChanged(self.catalog))

    def tell(self, event: ControllerEvent, after: float = 0.0) -> list[str]:
        self.now += after
        return words(self.controller.handle(event, self.now))

    def ready(self, name: str, after: float = 0.0) -> list[str]:
        return self.tell(ReplicaReady(ReplicaView(name, "m/1/v")), after)

    def changed(self, **fields: object) -> Catalog:
        templates = {n: msgspec.structs.replace(t, **fields) for n, t in self.catalog.templates.items()}
        self.catalog = msgspec.structs.replace(self.catalog, templates=templates)
        return self.catalog

    def states(self) -> dict[str, str]:
        return {n: str(m.state) for n, m in self.controller.state.replicas.items()}


def words(effects: Sequence[ControllerEffect]) -> list[str]:
    return [f"start {e.spec.id}" if isinstance(e, StartReplica) else f"stop {e.replica}" for e in effects]


def test_a_fleet_starts_the_least_of_each_variant() -> None:
    assert Post(least=2, most=3).first == ["start m-v-1", "start m-v-2"]


def test_a_dead_replica_is_started_again_after_a_growing_pause() -> None:
    post = Post()
    post.ready("m-v-1")
    pauses = []
    for _ in range(12):
        assert post.tell(ReplicaGone("m-v-1", "crash")) == []
        due = post.controller.next_deadline()
        assert due is not None
        pauses.append(due - post.now)
        assert post.tell(Tick(), (due - post.now) * 0.5) == []
        post.now = due
        assert post.tell(Tick()) == ["start m-v-1"]
        post.ready("m-v-1")
    assert pauses[:3] == pytest.approx([BACKOFF_S, 2 * BACKOFF_S, 4 * BACKOFF_S])
    assert max(pauses) == pytest.approx(BACKOFF_MOST_S)
    post.tell(ReplicaGone("m-v-1", "crash"), STABLE_S + 1)
    due = post.controller.next_deadline()
    assert due is not None
    assert due - post.now == pytest.approx(BACKOFF_S)


def test_a_start_that_fails_is_tried_again_and_its_reason_is_kept() -> None:
    post = Post()
    assert post.tell(ReplicaFailed("m-v-1", "no such file")) == []
    assert post.controller.state.replicas["m-v-1"].error == "no such file"
    assert post.tell(Tick(), 1.0) == ["start m-v-1"]


def test_loading_does_not_wait_for_the_back_off() -> None:
    post = Post()
    post.tell(ReplicaFailed("m-v-1", "no such file"))
    assert post.tell(LoadVariant("m/1/v")) == ["start m-v-1"]


def test_scaling_by_hand_starts_and_stops_the_youngest() -> None:
    post = Post(least=1, most=1)
    post.ready("m-v-1")
    assert post.tell(Scale("m/1/v", 3), 1.0) == ["start m-v-2", "start m-v-3"]
    post.ready("m-v-2", 1.0)
    assert post.tell(Scale("m/1/v", 2)) == ["stop m-v-3"]
    assert post.tell(ReplicaStopped("m-v-3")) == []
    assert post.tell(Scale("m/1/v", 1)) == ["stop m-v-2"]
    assert post.tell(Scale("ghost", 3)) == []


@pytest.mark.parametrize("stop", [Scale("m/1/v", 0), UnloadVariant("m/1/v")])
def test_a_replica_in_back_off_can_be_scaled_away(stop: ControllerEvent) -> None:
    post = Post()
    post.tell(ReplicaFailed("m-v-1", "no such file"))
    assert post.tell(stop) == []
    assert post.states() == {}
    assert post.controller.next_deadline() is None


def test_unloading_stops_all_and_loading_brings_the_least_back() -> None:
    post = Post(least=2, most=2)
    post.ready("m-v-1")
    post.ready("m-v-2")
    assert sorted(post.tell(UnloadVariant("m/1/v"))) == ["stop m-v-1", "stop m-v-2"]
    post.tell(ReplicaStopped("m-v-1"))
    post.tell(ReplicaStopped("m-v-2"))
    assert post.tell(LoadVariant("m/1/v")) == ["start m-v-1", "start m-v-2"]


def test_a_drained_replica_is_not_replaced() -> None:
    post = Post(least=2, most=2)
    post.ready("m-v-1")
    post.ready("m-v-2")
    assert post.tell(DrainReplica("m-v-1")) == ["stop m-v-1"]
    assert post.tell(ReplicaStopped("m-v-1")) == []
    assert post.tell(DrainReplica("ghost")) == []


def test_a_replica_that_dies_while_it_drains_is_over() -> None:
    post = Post()
    post.ready("m-v-1")
    post.tell(DrainReplica("m-v-1"))
    assert post.tell(ReplicaGone("m-v-1", "crash")) == []
    assert post.states() == {}


def test_a_changed_specification_is_stopped_only_when_its_successor_serves() -> None:
    post = Post()
    post.ready("m-v-1")
    assert post.tell(FleetChanged(post.changed(digest="new"))) == ["start m-v-2"]
    assert post.ready("m-v-2") == ["stop m-v-1"]
    assert post.tell(ReplicaStopped("m-v-1")) == []
    assert post.states() == {"m-v-2": "ready"}


def test_a_successor_that_does_not_start_leaves_the_old_one_in_service() -> None:
    post = Post()
    post.ready("m-v-1")
    post.tell(FleetChanged(post.changed(source="broken")))
    post.tell(ReplicaFailed("m-v-2", "broken"))
    assert post.states() == {"m-v-1": "ready", "m-v-2": "backoff"}


def test_no_outdated_replica_is_left_over_when_fewer_are_wanted() -> None:
    post = Post(least=2, most=2)
    post.ready("m-v-1")
    post.ready("m-v-2")
    assert post.tell(FleetChanged(post.changed(digest="new"))) == ["start m-v-3", "start m-v-4"]
    (stopped,) = post.tell(Scale("m/1/v", 1))
    (left,) = {"m-v-3", "m-v-4"} - {stopped.removeprefix("stop ")}
    assert sorted(post.ready(left)) == ["stop m-v-1", "stop m-v-2"]


def test_an_outdated_replica_that_becomes_ready_late_is_stopped() -> None:
    post = Post()
    post.tell(FleetChanged(post.changed(digest="new")))
    assert post.ready("m-v-2") == ["stop m-v-1"]


def test_a_variant_that_leaves_the_catalog_is_stopped() -> None:
    post = Post()
    post.ready("m-v-1")
    assert post.tell(FleetChanged(fleet(variant("n")))) == ["stop m-v-1", "start n-v-1"]


def test_doubled_news_of_a_death_counts_once() -> None:
    post = Post()
    post.ready("m-v-1")
    post.tell(ReplicaGone("m-v-1", "crash"))
    due = post.controller.next_deadline()
    post.tell(ReplicaFailed("m-v-1", "crash"))
    assert post.controller.next_deadline() == due


def test_load_scales_up_at_once_and_down_after_a_calm() -> None:
    post = Post(least=1, most=3)
    post.ready("m-v-1")
    assert post.tell(Load({"m/1/v": 5}, {"m/1/v": 0.95})) == ["start m-v-2"]
    post.ready("m-v-2", 1.0)
    assert post.tell(Load({"m/1/v": 0}, {"m/1/v": 0.95})) == []
    assert post.tell(Load({"m/1/v": 5}, {"m/1/v": 0.5})) == []
    for _ in range(scale.CALM - 1):
        assert post.tell(Load({"m/1/v": 0}, {"m/1/v": 0.1})) == []
    assert post.tell(Load({"m/1/v": 0}, {"m/1/v": 0.1})) == ["stop m-v-2"]
    for _ in range(2 * scale.CALM):
        assert post.tell(Load({"m/1/v": 0}, {"m/1/v": 0.0})) == []


def test_a_fixed_number_is_not_scaled() -> None:
    post = Post(least=1, most=1)
    post.ready("m-v-1")
    assert post.tell(Load({"m/1/v": 50}, {"m/1/v": 1.0})) == []


def test_a_snapshot_goes_on_as_the_first_would_have() -> None:
    post = Post(least=2, most=3)
    post.ready("m-v-1")
    post.tell(ReplicaGone("m-v-1", "crash"))
    twin = Controller.restore(post.controller.snapshot())
    assert twin.snapshot() == post.controller.snapshot()
    for event in (Tick(), Scale("m/1/v", 3), FleetChanged(post.changed(digest="x")), UnloadVariant("m/1/v")):
        post.now += 1.0
        assert twin.handle(event, post.now) == post.controller.handle(event, post.now)  # type: ignore[arg-type]
    assert twin.snapshot() == post.controller.snapshot()
