"""Clients that live in environments of their own: kserve's over HTTP and gRPC, and litellm."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import text_models
from clients import environments
from semaforo.build import blueprint
from semaforo.server.settings import ServerSettings
from served_fleet import serving, small_fleet
from upstream import TEXT, Bigrams, Upstream

FLEET = """
tasks:
  chat: {{kind: chat}}
  other: {{kind: chat}}
  embed: {{kind: embedding}}
  moderate:
    kind: moderation
    outputs:
      scores: {{type: 'fp32[3]', labels: {labels}}}
models:
  near: {{task: chat, url: {url}, quality: 0.9, options: {{model: bigram, completions: true}}}}
  writer: {{task: chat, python: 'litellm_models:write', isolation: thread, quality: 0.1}}
  broken: {{task: other, python: 'litellm_models:fail', isolation: thread}}
  breaks: {{task: other, python: 'litellm_models:break_off', isolation: thread}}
  vectors: {{task: embed, url: {url}, options: {{model: bigram}}}}
  judge: {{task: moderate, url: {url}, options: {{model: bigram}}}}
"""
MODELS = f"""
import sys

sys.path.append({str(Path(__file__).parents[1])!r})

from upstream import TEXT, Bigrams


def write(messages):
    yield from Bigrams(TEXT).write(messages[-1]["content"], 50)


def fail(messages):
    raise RuntimeError("this model always fails")
    yield


def break_off(messages):
    yield "so "
    yield "far "
    raise RuntimeError("this model breaks off")
"""


@pytest.fixture(scope="module", autouse=True)
def environment(request: pytest.FixtureRequest) -> None:
    """Make what is missing of both environments, and say so: that takes a minute, once."""
    if all(map(environments.interpreter, environments.NAMES)):
        return
    try:
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print(file=sys.stderr)
            environments.make_all()
    except environments.Unreachable as error:
        pytest.skip(f"NO CLIENT WAS TRIED: pip reaches no package index, so none can be installed ({error})")


def call(name: str, *words: str) -> Any:
    script = Path(__file__).parents[1] / "clients" / f"{name}_calls.py"
    command = [str(environments.interpreter(name)), str(script), *words]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr[-4000:]
    return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def kserve(environment: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    settings = ServerSettings(port=0, grpc_port=0, grace_s=2.0)
    with serving(small_fleet(tmp_path_factory.mktemp("models")), settings) as served:
        return call("kserve", served.url, served.grpc)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture(scope="module")
def litellm(environment: None, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("fleet")
    (folder / "litellm_models.py").write_text(MODELS)
    (folder / "fleet.yaml").write_text(FLEET.format(url=upstream.url, labels=list(text_models.LABELS)))
    plan = blueprint(folder / "fleet.yaml")
    with serving(plan.catalog, secrets=plan.secrets) as served:
        return call("litellm", served.url)


# Each may be the one that makes the environments.
pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("way", ["http", "grpc"])
def test_kserve_finds_the_server_and_its_models_ready(kserve: Any, way: str) -> None:
    assert [kserve[way][name] for name in ("live", "ready", "model ready")] == [True] * 3


@pytest.mark.parametrize("way", ["http", "grpc"])
@pytest.mark.parametrize("form", ["json", "binary"])
def test_kserve_infers(kserve: Any, way: str, form: str) -> None:
    answer = kserve[way][form]
    assert (answer["model"], answer["id"]) == ("net", "mine")
    weights = np.linspace(-1, 1, 12).reshape(4, 3)
    logits = np.array([[1, 2, 3, 4], [4, 3, 2, 1]]) @ weights + [0.5, 0, -0.5]
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert np.allclose(answer["outputs"]["scores"], expected, atol=1e-6)
    assert answer["outputs"]["label"] == expected.argmax(1).tolist()
    if way == "http":
        assert kserve[way][f"{form} served by"] == "net"


@pytest.mark.parametrize("way", ["http", "grpc"])
@pytest.mark.parametrize("form", ["json", "binary"])
def test_kserve_gets_every_dtype_back(kserve: Any, way: str, form: str) -> None:
    found = kserve[way]
    assert found[f"{form} BOOL"] == [[True, False]]
    assert found[f"{form} INT8"] == [[-128, 127]]
    assert found[f"{form} UINT64"] == [[0, 2**64 - 1]]
    assert found[f"{form} INT64"] == [[-(2**63), 5]]
    assert found[f"{form} FP32"] == [[-1.5, float(np.float32(1e30))]]
    assert found[f"{form} FP64"] == [[-1.5, 1e300]]
    assert found[f"{form} BYTES"] == [["", "grüße"]]
    if form == "binary":
        assert found["binary FP16"] == [[-1.5, 0.25]]


@pytest.mark.parametrize("way", ["http", "grpc"])
def test_kserve_states_a_contract_and_asks_many_at_once(kserve: Any, way: str) -> None:
    assert kserve[way]["contract"] == "net"
    assert kserve[way]["many"] == list(range(64))


@pytest.mark.parametrize(
    ("name", "status", "code", "text"),
    [
        ("unknown model", 404, "NOT_FOUND", "Did you mean 'digits'"),
        ("wrong input", 400, "INVALID_ARGUMENT", "takes no input 'picture'"),
        ("wrong shape", 400, "INVALID_ARGUMENT", "has shape [2, 3]"),
        ("no such quality", 422, "", "no variant of 'digits' meets the contract"),
    ],
)
def test_kserve_is_told_what_was_wrong(kserve: Any, name: str, status: int, code: str, text: str) -> None:
    found = kserve["http"][name]
    assert found[0] == status
    assert text in found[1]
    if code:
        found = kserve["grpc"][name]
        assert found[0] == code
        assert text in found[1]


def written(prompt: str, most: int) -> list[str]:
    return list(islice(Bigrams(TEXT).write(prompt, most), most))


def test_litellm_chats_whole_and_streamed(litellm: Any) -> None:
    words = written("the slow train", 12)
    whole = litellm["whole"]
    assert whole["text"] == "".join(words)
    assert (whole["tokens"], whole["model"]) == (len(words), "near")
    assert whole["prompt tokens"] > 0
    streamed = litellm["streamed"]
    assert "".join(streamed["parts"]) == "".join(words)
    assert len(streamed["parts"]) > 3
    assert streamed["tokens"] == len(words)
    assert streamed["finish"] == whole["finish"]


def test_litellm_runs_many_streams_at_once(litellm: Any) -> None:
    assert litellm["many"] == ["".join(written(f"{n} train", 8 + n)) for n in range(16)]


def test_litellm_limits_a_python_model(litellm: Any) -> None:
    text = "".join(written("the slow train", 50))
    assert "train" in text
    assert litellm["stopped"] == text[: text.index("train")]
    assert litellm["limited"] == "length"


def test_litellm_states_a_contract(litellm: Any) -> None:
    assert litellm["contract"] == "writer"


def test_litellm_completes_embeds_and_moderates(litellm: Any) -> None:
    assert litellm["text"] == "".join(written("the slow train", 5))
    assert litellm["vectors"] == [pytest.approx(text_models.embed(text)) for text in ("the signal", "a box")]
    assert litellm["flagged"] is True


@pytest.mark.parametrize(
    ("name", "kind", "status", "text"),
    [
        ("unknown model", "NotFoundError", 404, "Did you mean 'chat'"),
        ("wrong field", "BadRequestError", 400, "service_tier: 'fast' is none of"),
        ("out of contract", "BadRequestError", 422, "meets the contract"),
        ("model fails", "InternalServerError", 500, "this model always fails"),
        ("stream fails", "", None, "this model breaks off"),
    ],
)
def test_litellm_raises_its_own_errors(litellm: Any, name: str, kind: str, status: int, text: str) -> None:
    found = litellm[name]
    assert found[0] != "answered"
    assert text in found[2]
    if kind:
        assert found[:2] == [kind, status]
