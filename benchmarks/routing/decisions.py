"""What a learned decision costs: from the arrival of a request to the batch it runs in, in process.

All is on: features of the text, a trained router with all its levels, what feedback has taught, exploration with
its propensities, and the explanation. There is no embedding.
"""

from __future__ import annotations

import time

import numpy as np

from benchmarks.report import Report, bootstrap, percentile
from benchmarks.routing import data
from semaforo.catalog.state import Catalog
from semaforo.core.dispatcher import Dispatcher
from semaforo.core.effects import Run, Score
from semaforo.core.events import Arrived, BatchDone, Feedback, FleetChanged, ReplicaReady, Scored
from semaforo.entities import (
    BatchProfile,
    Contract,
    Cost,
    Exploration,
    Preference,
    Ref,
    ReplicaView,
    Request,
    TaskType,
    Variant,
)
from semaforo.jobs.learn.train import train
from semaforo.live.scoring import gains_of, signals_of
from semaforo.routing.scorer import Scorer
from semaforo.wire.payload import Tensors


def measure(report: Report, quick: bool) -> None:
    """Measure decisions one by one."""
    found = data.mmlu(400 if quick else 6000) or data.made()
    report.progress("what a decision costs")
    half = len(found) // 2
    scorer = Scorer(train(found.rows(np.arange(half))))
    dispatcher = _dispatcher()
    now, times = 0.0, []
    prompts = found.prompts[half:][: 200 if quick else 3000]
    for number, prompt in enumerate(prompts):
        payload = Tensors({"text": np.array([prompt.encode()], object)})
        request = Request(
            f"{number:08x}", "questions", contract=Contract(deadline_s=1.0), ref=Ref(1, len(prompt))
        )
        now += 0.01
        begun = time.perf_counter()
        (score,) = dispatcher.handle(Arrived(request), now)
        assert isinstance(score, Score)
        ((gain, trust),) = gains_of(scorer, "mmlu", [(score, signals_of(payload))])
        effects = dispatcher.handle(Scored(request.id, gain, trust), now)
        times.append((time.perf_counter() - begun) * 1e6)
        run = next(e for e in effects if isinstance(e, Run))
        dispatcher.handle(BatchDone(run.batch, 0.001), now + 0.001)
        variant = "weak/1/v" if run.replica == "w" else "strong/1/v"
        dispatcher.handle(Feedback(request.id, variant, float(number % 3 > 0)), now + 0.002)
    times = times[len(times) // 10 :]
    report.add("decision_us_p50", bootstrap(times, lambda v: percentile(v, 0.5), 200), "µs", aim=150.0)
    report.add("decision_us_p99", bootstrap(times, lambda v: percentile(v, 0.99), 200), "µs")
    words = float(np.mean([len(p.split()) for p in prompts]))
    report.note(f"decisions: prompts of {words:.0f} words on average, one at a time, one thread")


def _dispatcher() -> Dispatcher:
    dispatcher = Dispatcher()
    task = TaskType(
        "questions", prefer=Preference("cost", keep_quality=0.95), score_s=1.0,
        explore=Exploration(share=0.02, shadow=0.02),
    )  # fmt: skip
    profile = BatchProfile(0.001, 0.0005)
    variants = {
        f"{name}/1/v": Variant(
            f"{name}/1/v", name, "1", "v", "questions", quality, Cost(second=price), profile
        )
        for name, quality, price in (("weak", 0.7, 0.001), ("strong", 0.8, 0.01))
    }
    catalog = Catalog({"questions": task}, variants, {}, {}, {}, {"weak": "1", "strong": "1"})
    dispatcher.handle(FleetChanged(catalog), 0.0)
    for replica, variant in (("w", "weak/1/v"), ("s", "strong/1/v")):
        dispatcher.handle(ReplicaReady(ReplicaView(replica, variant, "cpu", slots=4)), 0.0)
    return dispatcher
