"""Requests are looked at by the extractors of their task: built in, installed, or one's own."""

from __future__ import annotations

import asyncio
import logging
import math
import sqlite3
import time
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from semaforo import Fleet
from semaforo.build import blueprint
from semaforo.catalog import Catalog
from semaforo.config.fleet import FleetFileError
from semaforo.entities import BatchProfile, Cost, Look, TaskType, TensorSpec, Variant
from semaforo.features.plan import Sources, plan_of
from semaforo.features.profile import DataProfile, profile_of
from semaforo.jobs.learn.train import train
from semaforo.live.drifting import Drifting, numbers_of
from semaforo.live.looking import AGAIN, MOST_WAITING, Looking, Seen, everything
from semaforo.routing.router import Router
from semaforo.routing.table import Table
from semaforo.server.settings import ServerSettings
from semaforo.wire.payload import Chat, Tensors
from served_fleet import serving

FLEET = """\
tasks:
  digits:
    inputs:   {image: {type: "fp32[64]", looks: image}}
    outputs:  {label: int64}
    prefer:   {minimise: cost, keep_quality: 0.97}
    features: mine.py:more
    router:   {file: digits.router, wait: 200ms}
devices: {cpu: {price: 1/h}}
models:
  small: {task: digits, python: "mine.py:small", quality: 0.80, isolation: thread}
  large: {task: digits, python: "mine.py:large", quality: 0.9, isolation: thread}
history: history.db
"""
MINE = """\
import time

import numpy as np


def more(inputs):
    return {"first": inputs["image"][0, 0]}


def broken(inputs):
    if inputs["image"][0, 0] > 0:
        raise RuntimeError("out of order")
    return {"first": "a word", "good": 1.0}


def slow(inputs):
    time.sleep(0.5)
    return {"first": 0.0}


def small(image: np.ndarray) -> np.ndarray:
    return np.zeros(len(image), np.int64)


def large(image: np.ndarray) -> np.ndarray:
    time.sleep(0.002)
    return np.ones(len(image), np.int64)
"""
CLEAN = np.outer(np.linspace(1, 4, 8), np.linspace(1, 4, 8)).astype(np.float32).ravel()


def noisy(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0.0, 6.0, 64)
    return (CLEAN + noise).astype(np.float32)


@cache
def router(name: str, low: tuple[float, float], high: tuple[float, float]) -> Router:
    """Return a router for which a feature tells where the small model fails."""
    rng = np.random.default_rng(0)
    bad = rng.random(160) < 0.4
    numbers = np.where(bad, rng.uniform(*high, 160), rng.uniform(*low, 160))[:, None]
    scores = np.stack([1.0 - bad, np.full(160, 0.9)], axis=1)
    empty = ("",) * 160
    table = Table(
        ("small", "large"), ("digits",) * 160, empty, scores, np.full(scores.shape, np.nan), (name,), numbers
    )
    return Router(train(table), 160)


@pytest.fixture
def fleet_file(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "fleet.yaml").write_text(FLEET)
    return tmp_path / "fleet.yaml"


def kept(folder: Path) -> list[dict[str, float]]:
    with sqlite3.connect(folder / "history.db") as base:
        return [
            msgspec.msgpack.decode(row[0])
            for row in base.execute("SELECT features FROM answers ORDER BY seq")
        ]


def test_a_history_has_features_before_there_is_a_router(fleet_file: Path) -> None:
    fleet_file.write_text("".join(line for line in FLEET.splitlines(True) if "router:" not in line))
    with Fleet.open(fleet_file) as fleet:
        for seed in range(3):
            fleet.infer("digits", image=noisy(seed))
    first = [one["own.first"] for one in kept(fleet_file.parent)]
    assert first == pytest.approx([float(noisy(seed).ravel()[0]) for seed in range(3)], abs=1e-6)


def test_a_router_sees_the_noise_of_a_picture(fleet_file: Path) -> None:
    (fleet_file.parent / "digits.router").write_bytes(router("image.noise", (0.0, 2.0), (3.0, 9.0)).encode())
    with Fleet.open(fleet_file) as fleet:
        fleet.infer("digits", image=CLEAN)
        assert {fleet.infer("digits", image=CLEAN).model for _ in range(5)} == {"small"}
        assert {fleet.infer("digits", image=noisy(seed)).model for seed in range(5)} == {"large"}
    first = kept(fleet_file.parent)[0]
    assert {"image.noise", "image.sharpness", "image.mean", "own.first"} <= set(first)


def test_a_function_of_ones_own_is_a_feature(fleet_file: Path) -> None:
    (fleet_file.parent / "digits.router").write_bytes(router("own.first", (-9.0, -1.0), (1.0, 9.0)).encode())
    easy, hard = CLEAN.copy(), CLEAN.copy()
    easy[0], hard[0] = -5.0, 5.0
    with Fleet.open(fleet_file) as fleet:
        assert {fleet.infer("digits", image=easy).model for _ in range(5)} == {"small"}
        assert {fleet.infer("digits", image=hard).model for _ in range(5)} == {"large"}


def test_what_is_broken_is_said_once_and_costs_no_answer(
    fleet_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (fleet_file.parent / "digits.router").write_bytes(router("own.first", (-9.0, -1.0), (1.0, 9.0)).encode())
    fleet_file.write_text(FLEET.replace("mine.py:more", "mine.py:broken"))
    with caplog.at_level(logging.ERROR, "semaforo.features"), Fleet.open(fleet_file) as fleet:
        for first in (1.0, 1.0, -1.0, -1.0):
            image = CLEAN.copy()
            image[0] = first
            assert fleet.infer("digits", image=image).model
    assert len(caplog.records) == 1
    assert "the features 'own' of 'digits': raised RuntimeError: out of order" in caplog.text
    assert "own.first" not in kept(fleet_file.parent)[-1]
    assert kept(fleet_file.parent)[-1]["own.good"] == 1.0


def test_what_is_too_slow_is_not_waited_for(fleet_file: Path) -> None:
    (fleet_file.parent / "digits.router").write_bytes(router("own.first", (-9.0, -1.0), (1.0, 9.0)).encode())
    fleet_file.write_text(FLEET.replace("mine.py:more", "mine.py:slow").replace("200ms", "20ms"))
    with Fleet.open(fleet_file) as fleet:
        begun = time.monotonic()
        assert fleet.infer("digits", image=CLEAN).model
        assert time.monotonic() - begun < 0.4
        # While it is looked at, others are answered.
        assert fleet.infer("digits", image=CLEAN).model
        assert time.monotonic() - begun < 0.4
        time.sleep(1.2)
        begun = time.monotonic()
        for _ in range(5):
            assert fleet.infer("digits", image=CLEAN).model
        assert time.monotonic() - begun < 0.4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("looks: imge", "nothing looks at inputs as 'imge'. Did you mean 'image'"),
        ("looks: text", "fp32 is no text"),
        ("mine.py:nothing", "has no 'nothing'"),
    ],
)
def test_what_looks_at_nothing_is_an_error_with_its_line(fleet_file: Path, change: str, message: str) -> None:
    (fleet_file.parent / "digits.router").write_bytes(router("own.first", (-9.0, -1.0), (1.0, 9.0)).encode())
    old = "mine.py:more" if "mine" in change else "looks: image"
    fleet_file.write_text(FLEET.replace(old, change))
    with pytest.raises(FleetFileError) as caught:
        blueprint(fleet_file)
    assert message in str(caught.value)
    assert f"fleet.yaml:{6 if 'mine' in change else 3}: tasks.digits" in str(caught.value)


def stripes(array: Any, look: Look) -> dict[str, float]:
    return {"stripes": 7.0}


def test_an_extractor_is_installed_by_an_entry_point(
    fleet_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import semaforo.plugins

    point = EntryPoint("stripes", f"{__name__}:stripes", "semaforo.features")
    monkeypatch.setattr(
        semaforo.plugins, "entry_points", lambda group: [point] if group == point.group else []
    )
    (fleet_file.parent / "digits.router").write_bytes(router("own.first", (-9.0, -1.0), (1.0, 9.0)).encode())
    fleet_file.write_text(FLEET.replace("looks: image", "looks: stripes"))
    with Fleet.open(fleet_file) as fleet:
        assert fleet.infer("digits", image=CLEAN).model
        assert fleet.infer("digits", image=CLEAN).model
    assert kept(fleet_file.parent)[-1]["image.stripes"] == 7.0
    point = EntryPoint("stripes", f"{__name__}:none", "semaforo.features")
    with pytest.raises(FleetFileError, match=r"the extractor 'stripes' .* cannot be imported here"):
        blueprint(fleet_file)


# --- drift ------------------------------------------------------------------------------------------------


@pytest.fixture
def all_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at every request, whatever it costs."""
    monkeypatch.setattr("semaforo.live.drifting.SHARE", 1e9)


def infer(http: httpx.Client, image: np.ndarray, task: str = "digits") -> str:
    rows = image.reshape(-1, 64)
    tensor = {"name": "image", "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}
    answer = http.post(f"/v2/models/{task}/infer", json={"inputs": [tensor]})
    assert answer.status_code == 200, answer.text
    return answer.headers["semaforo-request-id"]


def profiled(*seeds: range) -> DataProfile:
    """Return the profile of noisy pictures as an evaluation makes it."""
    task = TaskType("digits", inputs=(TensorSpec("image", "FP32", (64,)),), looks={"image": Look("image")})
    plan = plan_of(task)
    found = profile_of(
        [everything(plan, Tensors({"image": noisy(seed)[None]})).numbers for s in seeds for seed in s]
    )
    assert found is not None
    return found


@pytest.mark.usefixtures("all_looked_at")
def test_drift_is_seen_where_requests_are_not_what_models_were_measured_on(
    fleet_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # No router is needed for that: what is said of a model comes from its own profile.
    lines = (line for line in FLEET.splitlines(True) if "router" not in line and "features" not in line)
    fleet_file.write_text("".join(lines))
    plan = blueprint(fleet_file)
    sources = Sources(
        profiles={"small/1/default": profiled(range(200)), "large/1/default": profiled(range(200))}
    )
    settings = ServerSettings(port=0, grace_s=2.0)
    with (
        serving(plan.catalog, settings, sources=sources) as served,
        httpx.Client(base_url=served.url) as http,
    ):

        def known(variant: str) -> dict[str, Any]:
            found = http.get("/semaforo/v1/quality").json()["variants"]
            return next(one for one in found if one["variant"] == variant)

        for seed in range(120):
            infer(http, noisy(1000 + seed))
        assert known("small/1/default")["drift"]["drifted"] is False
        assert known("small/1/default")["drift"]["outside"] < 0.1
        # Whoever answers: what a router sends to one variant is no drift.
        assert known("large/1/default")["drift"] == known("small/1/default")["drift"]
        for seed in range(160):
            infer(http, noisy(2000 + seed) * 3)
        drift = known("large/1/default")["drift"]
        assert drift["drifted"] is True
        assert drift["index"] > 0.25
        assert "image.contrast" in drift["features"]
        assert (
            caplog.text.count("the requests of 'digits' have drifted from what its models were measured on")
            == 1
        )
        metrics = http.get("/metrics").text
        assert 'semaforo_variant_drift_index{model="small"' in metrics
        (image,) = (c for c in http.get("/semaforo/v1/figures").json()["looks"] if c["extractor"] == "image")
        # One that took a thread is waited for, and others pass meanwhile.
        assert 200 < image["count"] <= 280
        assert (
            f'semaforo_feature_looks_total{{extractor="image",task="digits"}} {image["count"]}.0' in metrics
        )
        assert 0.0 < image["seconds"] < image["count"] * 0.1


def test_a_request_is_told_how_far_it_is_from_the_training_of_its_router(fleet_file: Path) -> None:
    found = router("image.noise", (0.0, 2.0), (3.0, 9.0))
    known = msgspec.structs.replace(found, data={"digits": profiled(range(200))})
    (fleet_file.parent / "digits.router").write_bytes(known.encode())
    with Fleet.open(fleet_file) as fleet:
        fleet.infer("digits", image=noisy(0))
        usual = fleet.infer("digits", image=noisy(1))
        strange = fleet.infer("digits", image=noisy(2) * 100)
        many = fleet.infer("digits", image=np.stack([noisy(3), noisy(4)]))
        assert "of its features out of the range that its models were measured on" in strange.why
        assert "of its features out of the range" not in many.why
        shares = [float(why.split("% of its features")[0].split()[-1]) for why in (usual.why, strange.why)]
        assert shares[0] < 15.0 < 30.0 < shares[1]
    assert "drift" in kept(fleet_file.parent)[1]


@pytest.mark.usefixtures("all_looked_at")
def test_texts_drift_too() -> None:
    task = TaskType("t", inputs=(TensorSpec("x", "BYTES"),))

    def said(words: str) -> Tensors:
        return Tensors({"x": np.array([words.encode()], object)})

    rng = np.random.default_rng(0)
    texts = [
        " ".join(rng.choice(["where", "is", "the", "house", "tree"], rng.integers(3, 9))) for _ in range(250)
    ]
    known = profile_of([numbers_of(everything(plan_of(task), said(text))) for text in texts])
    assert known is not None
    catalog = Catalog(
        variants={"m/1/v": Variant("m/1/v", "m", "1", "v", "t", 0.9, Cost(), BatchProfile(1e-3, 0.0))}
    )

    async def live() -> list[bool]:
        found = Drifting(
            Looking(Sources(), {"t": task}.get), {"m/1/v": known}, lambda name: None, lambda: catalog
        )
        drifted = []
        for words in (texts[:150], ["Бытие определяет сознание"] * 150):
            for text in words:
                found.answered("m/1/v", said(text))
                await asyncio.sleep(0)
            drifted.append(found.drifts()["m/1/v"].drifted)
        return drifted

    assert asyncio.run(live()) == [False, True]


def test_looking_for_drift_costs_a_hundredth_of_the_time() -> None:
    now = [0.0]

    def own(inputs: Any) -> dict[str, float]:
        now[0] += 0.001
        return {"n": 1.0}

    task = TaskType("t", inputs=(TensorSpec("x", "FP32", (4,)),))
    looking = Looking(Sources(own={"t": own}), {"t": task}.get, lambda: now[0])
    variants = {"m/1/v": Variant("m/1/v", "m", "1", "v", "t", 0.9, Cost(), BatchProfile(1e-3, 0.0))}
    catalog = Catalog(variants=variants)
    known = profile_of([{"own.n": 1.0}] * 40)
    assert known is not None

    async def live() -> int:
        found = Drifting(looking, {"m/1/v": known}, lambda name: None, lambda: catalog, lambda: now[0])
        payload = Tensors({"x": np.zeros((1, 4), np.float32)})
        # The first look takes a thread, and is no measure of the others.
        await look(looking, payload)
        now[0] = 0.0
        for _ in range(2000):
            found.answered("m/1/v", payload)
            while found._due == math.inf:
                await asyncio.sleep(0)
            now[0] += 0.0005
        return looking.costs["t", "own"].count - 1

    # A second passes while requests come every half a millisecond, and a look takes one.
    assert asyncio.run(live()) == pytest.approx(10, abs=1)


# --- what it costs ----------------------------------------------------------------------------------------


def looking(seconds: list[float], wait_s: float) -> tuple[Looking, Tensors]:
    """Return what looks with a function that takes `seconds`, by a clock of its own."""
    now = [0.0]

    def own(inputs: Any) -> dict[str, float]:
        now[0] += seconds[0]
        return {"n": 1.0}

    task = TaskType("t", inputs=(TensorSpec("x", "FP32", (4,)),), score_s=wait_s)
    found = Looking(Sources(own={"t": own}), {"t": task}.get, lambda: now[0])
    return found, Tensors({"x": np.zeros((1, 4), np.float32)})


async def look(found: Looking, payload: Tensors | Chat) -> tuple[Seen, bool]:
    """Return what was seen, and whether it took a thread."""
    heard: asyncio.Future[Seen] = asyncio.get_running_loop().create_future()
    seen = found.look("t", payload, heard.set_result)
    return (seen, False) if seen is not None else (await heard, True)


def test_what_is_short_runs_in_the_loop_and_what_is_long_in_a_thread() -> None:
    async def live() -> None:
        seconds = [0.0]
        found, payload = looking(seconds, 1.0)
        cost = found.costs
        assert (await look(found, payload))[1], "what was never measured may block"
        for _ in range(40):
            seen, away = await look(found, payload)
        assert not away
        assert seen.signals.numbers["own.n"] == 1.0
        assert seen.whole
        seconds[0] = 0.02
        # The first one is a surprise; from then on it is known.
        for _ in range(3):
            seen, away = await look(found, payload)
        assert away
        assert seen.signals.numbers["own.n"] == 1.0
        assert cost["t", "own"].count == 44
        assert cost["t", "own"].seconds > 0.05
        assert cost["t", "tensor"].count == 44
        assert cost["t", "tensor"].away == 0
        found.close()

    asyncio.run(live())


def test_what_is_longer_than_the_wait_is_left_out_and_tried_again() -> None:
    async def live() -> None:
        seconds = [0.02]
        found, payload = looking(seconds, 0.005)
        await look(found, payload)
        for _ in range(AGAIN - 1):
            seen, away = await look(found, payload)
            assert not away
            assert not seen.whole
            assert "own.n" not in seen.signals.numbers
            assert "x.mean" in seen.signals.numbers
        assert found.costs["t", "own"].skipped == AGAIN - 1
        assert (await look(found, payload))[1], "one is tried again"
        found.close()

    asyncio.run(live())


def test_no_more_wait_for_the_thread_than_it_can_bear() -> None:
    async def live() -> None:
        found, payload = looking([0.0], 1.0)
        heard: list[Seen] = []
        at_once = [found.look("t", payload, heard.append) for _ in range(MOST_WAITING + 3)]
        assert at_once[:MOST_WAITING] == [None] * MOST_WAITING
        assert all(seen is not None and not seen.whole for seen in at_once[MOST_WAITING:])
        assert found.costs["t", "own"].skipped == 3
        while len(heard) < MOST_WAITING:
            await asyncio.sleep(0.001)
        assert all(seen.whole and seen.signals.numbers["own.n"] == 1.0 for seen in heard)
        found.close()

    asyncio.run(live())


def test_a_chat_is_given_to_a_function_as_its_body() -> None:
    async def live() -> None:
        task = TaskType("t", kind="chat")
        found = Looking(
            Sources(own={"t": lambda body: {"tools": len(body.get("tools", ()))}}), {"t": task}.get
        )
        body = {"messages": [{"role": "user", "content": "hello"}], "tools": [{}, {}]}
        seen, _ = await look(found, Chat(body))
        assert seen.signals.text == "hello"
        assert seen.signals.numbers["own.tools"] == 2.0
        assert seen.signals.numbers["chat.turns"] == 1.0
        found.close()

    asyncio.run(live())
