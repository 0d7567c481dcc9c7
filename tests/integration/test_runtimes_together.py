"""Models of five formats that serve one task, each in a process of its own, asked over HTTP as one fleet."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from semaforo.build import blueprint
from served_fleet import Served, serving

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")
skops = pytest.importorskip("skops.io")
lightgbm = pytest.importorskip("lightgbm")
xgboost = pytest.importorskip("xgboost")

from sklearn.datasets import load_digits  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

# Five processes that import a large library each take their time on a busy machine.
pytestmark = pytest.mark.timeout(180)

FLEET = """\
tasks:
  digits:
    inputs:  {image: "fp32[64]"}
    outputs: {label: int64, scores: "fp32[10]"}
    prefer:  {maximise: quality}
models:
  exported:
    task: digits
    source: models/exported
    isolation: process
    interpreter: PYTHON
    quality: 0.9
    adapter: {outputs: {label: {from: scores, argmax: true}}}
  weights:
    task: digits
    source: models/weights
    options: {module: "digit_net.py:Net", args: {width: 32}}
    adapter: {outputs: {scores: {from: logits, softmax: true}, label: {from: logits, argmax: true}}}
  pipeline:
    task: digits
    source: models/pipeline
    adapter: {outputs: {scores: probabilities}}
  light:
    task: digits
    source: models/light
    adapter: {outputs: {scores: {from: probabilities, dtype: fp32}}}
  extreme:
    task: digits
    source: models/extreme
    adapter: {outputs: {scores: probabilities}}
"""

NET = """\
from torch import nn


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

    def forward(self, pixels):
        return self.layers(pixels)
"""

Answer = Callable[[Any], Any]


class Softmax(torch.nn.Module):
    """A network of pixels whose answer has a name."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Any) -> Any:
        return {"scores": self.net(pixels).softmax(-1)}


def digits() -> tuple[Any, Any]:
    data = load_digits()
    return data.data.astype("f4"), data.target


def train(net: Any, x: Any, y: Any) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    inputs, targets = torch.tensor(x) / 16, torch.tensor(y)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(inputs), targets).backward()
        optimizer.step()
    with torch.no_grad():
        net.layers[0].weight /= 16  # pixels come as 0…16


def write_models(folder: Path) -> dict[str, Answer]:
    """Train and save five models; return what each library itself answers, as scores."""
    x, y = digits()
    half = len(x) // 2
    places = {
        name: folder / "models" / name / "1"
        for name in ("exported", "weights", "pipeline", "light", "extreme")
    }
    for place in places.values():
        place.mkdir(parents=True)
    (places["weights"] / "digit_net.py").write_text(NET)
    sys.path.insert(0, str(places["weights"]))
    try:
        from digit_net import Net  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(places["weights"]))
        sys.modules.pop("digit_net", None)
    net = Net(32)
    train(net, x[:half], y[:half])
    wrapped = Softmax(net).eval()
    rows = ({0: torch.export.Dim("rows")},)
    program = torch.export.export(wrapped, (torch.ones(4, 64),), dynamic_shapes=rows)
    torch.export.save(program, places["exported"] / "model.pt2")
    safetensors.save_file(net.state_dict(), places["weights"] / "model.safetensors")
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(x[:half], y[:half])
    skops.dump(pipeline, places["pipeline"] / "model.skops")
    params = {"num_class": 10, "seed": 1, "max_depth": 3}
    light = lightgbm.train(
        {**params, "objective": "multiclass", "verbosity": -1, "num_threads": 1},
        lightgbm.Dataset(x[:half], y[:half], params={"verbosity": -1}),
        8,
    )
    light.save_model(places["light"] / "model.txt")
    extreme = xgboost.train(
        {**params, "objective": "multi:softprob", "nthread": 1}, xgboost.DMatrix(x[:half], y[:half]), 8
    )
    extreme.save_model(places["extreme"] / "model.ubj")

    def by_net(given: Any) -> Any:
        with torch.inference_mode():
            return wrapped(torch.tensor(given))["scores"].numpy()

    return {
        "exported": by_net,
        "weights": by_net,
        "pipeline": lambda given: pipeline.predict_proba(given.astype("f8")),
        "light": light.predict,
        "extreme": lambda given: extreme.predict(xgboost.DMatrix(given)),
    }


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, dict[str, Answer]]]:
    folder = tmp_path_factory.mktemp("fleet")
    answers = write_models(folder)
    (folder / "fleet.yaml").write_text(FLEET.replace("PYTHON", sys.executable))
    plan = blueprint(folder / "fleet.yaml")
    assert {spec.runtime for spec in plan.catalog.templates.values()} == {
        "torch",
        "sklearn",
        "lightgbm",
        "xgboost",
    }
    with serving(plan.catalog) as served:
        yield served, answers


def ask(client: httpx.Client, model: str, rows: Any) -> dict[str, Any]:
    body = {
        "inputs": [
            {"name": "image", "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}
        ]
    }
    reply = client.post(f"/v2/models/{model}/infer", json=body)
    assert reply.status_code == 200, reply.text
    outputs = {output["name"]: output for output in reply.json()["outputs"]}
    return {name: np.array(o["data"]).reshape(o["shape"]) for name, o in outputs.items()}


@pytest.mark.parametrize("model", ["exported", "weights", "pipeline", "light", "extreme"])
def test_each_answers_as_its_own_library_does(model: str, fleet: tuple[Served, dict[str, Answer]]) -> None:
    served, answers = fleet
    x, y = digits()
    held_out = x[len(x) // 2 :]
    with httpx.Client(base_url=served.url, timeout=30) as client:
        several = ask(client, model, held_out[:60])
        apart = [ask(client, model, held_out[row : row + 1]) for row in range(20)]
    want = answers[model](held_out[:60])
    np.testing.assert_allclose(several["scores"], want, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(several["label"], want.argmax(1))
    np.testing.assert_allclose(
        np.concatenate([one["scores"] for one in apart]), want[:20], rtol=1e-4, atol=1e-6
    )
    assert (several["label"] == y[len(x) // 2 :][:60]).mean() > 0.7


def test_the_task_is_served_by_the_best_of_them(fleet: tuple[Served, dict[str, Answer]]) -> None:
    served, answers = fleet
    x, _ = digits()
    with httpx.Client(base_url=served.url, timeout=30) as client:
        got = ask(client, "digits", x[-5:])
        metadata = client.get("/v2/models/digits").json()
    np.testing.assert_allclose(got["scores"], answers["exported"](x[-5:]), rtol=1e-4, atol=1e-6)
    assert [tensor["name"] for tensor in metadata["outputs"]] == ["label", "scores"]


def test_a_wrong_shape_is_refused_at_the_door(fleet: tuple[Served, dict[str, Answer]]) -> None:
    served, _ = fleet
    body = {"inputs": [{"name": "image", "shape": [1, 63], "datatype": "FP32", "data": [0.0] * 63}]}
    with httpx.Client(base_url=served.url, timeout=30) as client:
        for model in ("exported", "pipeline", "extreme"):
            assert client.post(f"/v2/models/{model}/infer", json=body).status_code == 400
