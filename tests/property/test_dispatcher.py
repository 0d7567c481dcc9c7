"""The dispatcher under any sequence of events, in any order, late, unknown and doubled ones among them."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from property import events

RANDOM = st.randoms(use_true_random=False)


class DispatcherMachine(RuleBasedStateMachine):
    """Hypothesis chooses; the model in the rig judges after each event."""

    @initialize(rng=RANDOM)
    def begin(self, rng: Random) -> None:
        self.rig = events.begin(rng)

    def _tell(self, make: object, rng: Random) -> None:
        self.rig.tell(make(rng, self.rig), rng.choice((0.0, 0.0, 0.001, 0.03)))  # type: ignore[operator]

    @rule(rng=RANDOM, count=st.integers(1, 8))
    def arrive(self, rng: Random, count: int) -> None:
        for _ in range(count):
            self._tell(events.arrival, rng)

    @rule(rng=RANDOM)
    def end_well(self, rng: Random) -> None:
        self._tell(events.good_end, rng)

    @rule(rng=RANDOM)
    def end_badly(self, rng: Random) -> None:
        self._tell(events.bad_end, rng)

    @rule(rng=RANDOM)
    def stop(self, rng: Random) -> None:
        self._tell(events.cancelled_end, rng)

    @rule(rng=RANDOM)
    def stream(self, rng: Random) -> None:
        self._tell(events.stream_news, rng)

    @rule(rng=RANDOM)
    def replica(self, rng: Random) -> None:
        self._tell(events.replica_news, rng)

    @rule(rng=RANDOM)
    def cancel(self, rng: Random) -> None:
        self._tell(events.cancellation, rng)

    @rule(rng=RANDOM)
    def score(self, rng: Random) -> None:
        self._tell(events.scores, rng)

    @rule(rng=RANDOM)
    def change(self, rng: Random) -> None:
        self._tell(events.change, rng)

    @rule(seconds=st.sampled_from((0.001, 0.05, 1.0, 40.0)))
    def wait(self, seconds: float) -> None:
        self.rig.tick(seconds)

    def teardown(self) -> None:
        if hasattr(self, "rig"):
            events.settle(self.rig)
            assert events.leftovers(self.rig) == {}


TestDispatcherMachine = DispatcherMachine.TestCase
TestDispatcherMachine.settings = settings(
    max_examples=120,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("block", range(5))
def test_many_bad_days(block: int) -> None:
    for seed in range(block * 50, block * 50 + 50):
        rng = Random(seed)
        rig = events.begin(rng)
        for _ in range(150):
            rig.tell(events.random_event(rng, rig), rng.choice((0.0, 0.0005, 0.003, 0.05)))
        events.settle(rig)
        assert events.leftovers(rig) == {}, seed
