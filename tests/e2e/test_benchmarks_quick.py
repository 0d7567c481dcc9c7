"""Benchmarks run to their end in their quick form; only what must hold on any machine is asserted.

`savings`, which trains a dozen models and starts two fleets, takes a minute of CPU even so, and is not among them.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

KEYS = {
    "core": {f"us_per_request_{n}" for n in (4, 32, 256, 1000)} | {"flatness", "answered_share"},
    "overload": {
        "goodput_share", "high_class_on_time", "low_class_share_of_guarantee", "idle_while_waiting",
        "memory_slope_mb_per_100k", "unanswered",
    },
    "faults": {"admitted", "lost", "wrong", "duplicated", "recovery_p95_s", "not_recovered", "processes_left"},
    "path": {"cpu_vs_bare", "cpu_process_vs_bare", "errors"},
    "fusion": {
        f"{key}{end}"
        for key in ("best_member", "best_fusion", "cascade_gap_points", "cascade_large_calls")
        for end in ("", "_digits")
    },
    "graphs": {
        "overhead_us", "overhead_http_us", "hop_600kb_us", "copies_inprocess", "cancel_ms_p99",
        "cancelled_that_went_on", "deadlocks_of_10000",
    },
    "routing": {
        "mmlu_apgr", "mmlu_apgr_tag", "mmlu_apgr_1500", "mmlu_apgr_unseen", "nine_models_score",
        "bandit_share_of_full_3000", "decision_us_p50", "decision_us_p99",
        "auto_accuracy", "auto_abstains_seen", "auto_abstains_unseen",
    },
    "fuzz": {"inputs", "server_errors", "hangs", "leaks"},
    "serving": {
        "cpu_vs_bare", "cpu_process_vs_bare", "grpc_vs_echo", "conv_vs_onnxruntime", "binary_vs_json",
        "kb_per_connection", "kb_per_stream", "errors",
    },
}  # fmt: skip
MUST_BE_ZERO = {
    "core": (),
    "overload": ("unanswered",),
    "faults": ("lost", "wrong", "duplicated", "not_recovered", "processes_left"),
    "path": ("errors",),
    "fusion": (),
    "graphs": ("copies_inprocess", "cancelled_that_went_on", "deadlocks_of_10000"),
    "routing": (),
    "fuzz": ("server_errors", "hangs", "leaks"),
    "serving": ("errors",),
}


def measured(name: str, folder: Path) -> dict[str, dict[str, Any]]:
    """Run a benchmark in its quick form and return its figures."""
    result = folder / f"{name}.json"
    paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p)}
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json", str(result)]
    run = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110, check=False
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    for key in KEYS[name]:
        assert key[:12] in run.stdout
    figures: dict[str, dict[str, Any]] = json.loads(result.read_bytes())
    return figures


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", sorted(KEYS))
def test_quick_form(name: str, tmp_path: Path) -> None:
    figures = measured(name, tmp_path)
    assert KEYS[name] <= figures.keys()
    for key, figure in figures.items():
        assert set(figure) == {"value", "low", "high", "unit", "aim"}, key
    for key in MUST_BE_ZERO[name]:
        assert figures[key]["value"] == 0, (key, figures[key])
    if name == "faults":
        assert figures["admitted"]["value"] > 0
        assert figures["faults"]["value"] == 2
    if name == "core":
        assert all(math.isfinite(f["value"]) and f["value"] > 0 for f in figures.values())
    if name == "overload":
        assert 0 <= figures["idle_while_waiting"]["value"] <= 1


def test_idle_time_is_seen_by_both_witnesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A free replica beside a waiting request counts; a busy one, and one too slow for the deadline, do not."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.idle import Idle, idle_by_log

    from semaforo.core.effects import Run
    from semaforo.core.events import Arrived, BatchDone, ReplicaReady, Tick
    from semaforo.entities import Contract, ReplicaView, Request

    meter = Idle({"fast": 0.1, "slow": 1.0}.__getitem__, 0.0, 10.0)
    request = Request("q", "t", contract=Contract(deadline_s=0.9))
    meter.fold(0.0, ReplicaReady(ReplicaView("f", "fast")), [])
    meter.fold(0.0, ReplicaReady(ReplicaView("s", "slow")), [])
    meter.fold(1.0, Arrived(request), [])
    meter.fold(1.25, Tick(), [Run(1, "f", ("q",), 1)])
    meter.fold(2.0, BatchDone(1, 0.75), [])
    assert meter.idle_s == pytest.approx(0.25)
    assert meter.by_variant == {"fast": pytest.approx(0.25)}
    assert meter.device_s == pytest.approx(4.0)
    assert meter.waits == [(1.0, 1.25, 1.9)]

    waits = [(1.0, 1.5, 9.0), (1.2, 2.0, 9.0), (3.0, 4.0, 3.4)]
    busy = [(0.0, 1.1), (1.3, 1.6)]
    idle = idle_by_log(busy, waits, one_row_s=0.1, start=0.0, end=10.0)
    assert idle == pytest.approx((1.3 - 1.1) + (2.0 - 1.6) + (3.3 - 3.0))
