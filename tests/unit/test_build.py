"""A fleet file becomes a catalog: versions, qualities, prices, who may see what, and what is wrong with files."""

from __future__ import annotations

import asyncio
from pathlib import Path
from unittest.mock import Mock

import pytest

from semaforo.build import blueprint, engine_for, handles
from semaforo.catalog import Scaling
from semaforo.config import FleetFileError
from semaforo.entities import Privacy, ReplicaSpec, StreamProfile
from semaforo.live.handle import Sink
from semaforo.repository import Measured, note, sha256_of

FLEET = """\
tasks:
  digits: {inputs: {image: fp32[64]}, outputs: {label: int64}, prefer: {maximise: quality, within: 5ms}}
  chat: {kind: chat}
devices:
  cuda: {price: 3.60/h}
models:
  net:
    task: digits
    source: models/net
    quality: 0.9
    variants:
      fp32: model.onnx
      int8: {file: model.int8.onnx, quality: 0.8, device: 'cuda:1', replicas: 2..3, options: {threads: 2}}
    options: {threads: 1, optimisation: basic}
  noted: {task: digits, source: models/noted, versions: [v2, v10]}
  rule: {task: digits, python: 'rules.py:digits'}
  llm: {task: chat, url: 'https://models.example/v1', key: sk, cost: {input: 2, request: 0.01}, stream: {slots: 9}}
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    for file in ("net/1/model.onnx", "net/1/model.int8.onnx", "noted/v2/model.onnx", "noted/v10/model.onnx"):
        path = tmp_path / "models" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.encode())
    (tmp_path / "rules.py").write_text("def digits(image): ...\n")
    note(tmp_path / "models/noted/v10/model.onnx", Measured(0.7))
    (tmp_path / "fleet.yaml").write_text(FLEET)
    return tmp_path / "fleet.yaml"


def test_every_variant_is_in_the_catalog_with_what_it_costs_and_is_worth(fleet: Path) -> None:
    catalog = blueprint(fleet).catalog
    assert list(catalog.variants) == [
        "net/1/fp32", "net/1/int8", "noted/v2/default", "noted/v10/default", "rule/1/default", "llm/1/default",
    ]  # fmt: skip
    assert catalog.in_service == {"net": "1", "noted": "v10", "rule": "1", "llm": "1"}
    fp32, int8 = catalog.variants["net/1/fp32"], catalog.variants["net/1/int8"]
    assert (fp32.quality, int8.quality) == (0.9, 0.8)
    assert (fp32.cost.second, int8.cost.second) == (0.0, pytest.approx(0.001))
    assert catalog.variants["noted/v10/default"].quality == 0.7
    assert catalog.variants["noted/v2/default"].quality is None
    assert catalog.scaling["net/1/int8"] == Scaling(2, 3)
    assert (catalog.tasks["digits"].prefer.goal, catalog.tasks["digits"].prefer.within_s) == (
        "quality",
        0.005,
    )


def test_a_graph_costs_nothing_but_what_its_steps_cost(fleet: Path) -> None:
    text = fleet.read_text().replace("devices:", "devices:\n  cpu: {price: 3.60/h}", 1)
    text = text.replace("models:", "models:\n  both: {task: digits, graph: {steps: {first: net}}}", 1)
    fleet.write_text(text)
    variants = blueprint(fleet).catalog.variants
    assert variants["both/1/default"].cost.second == 0.0
    assert variants["net/1/fp32"].cost.second > 0.0


def test_a_copy_on_several_devices_costs_them_all(fleet: Path) -> None:
    one = "device: 'cuda:1'"
    for several in ("device: ['cuda:0', 'cuda:1']", "device: 'cuda:0, cuda:1'", "device: cuda:0+cuda:1"):
        fleet.write_text(FLEET.replace(one, several))
        catalog = blueprint(fleet).catalog
        assert catalog.templates["net/1/int8"].device == "cuda:0+cuda:1"
        assert catalog.variants["net/1/int8"].cost.second == pytest.approx(0.002)


def test_the_runtime_is_found_from_the_file_or_asked_for(fleet: Path) -> None:
    net = fleet.parent / "models/net/1"
    (net / "model.int8.onnx").rename(net / "model.pt2")
    fleet.write_text(FLEET.replace("model.int8.onnx", "model.pt2"))
    templates = blueprint(fleet).catalog.templates
    assert (templates["net/1/fp32"].runtime, templates["net/1/int8"].runtime) == ("onnx", "torch")
    (net / "model.pt2").rename(net / "model.tflite")
    fleet.write_text(FLEET.replace("model.int8.onnx", "model.tflite"))
    with pytest.raises(
        FleetFileError, match=r"model\.tflite: no built-in runtime reads it.*Name its `runtime`"
    ):
        blueprint(fleet)


def test_a_template_says_how_to_start_a_replica(fleet: Path) -> None:
    plan = blueprint(fleet)
    templates = plan.catalog.templates
    int8 = templates["net/1/int8"]
    assert int8.options == {"threads": 2, "optimisation": "basic"}
    assert (int8.runtime, int8.device) == ("onnx", "cuda:1")
    assert int8.digest == sha256_of(Path(int8.source))
    assert int8.inputs[0]["name"] == "image"
    assert templates["rule/1/default"].source == f"{fleet.parent / 'rules.py'}:digits"
    llm = templates["llm/1/default"]
    assert (llm.runtime, llm.source) == ("openai", "https://models.example/v1")
    assert llm.options["model"] == "llm"
    assert plan.secrets == {"llm/1/default": {"key": "sk"}}


def test_a_secret_is_never_journaled_and_reaches_the_replica(
    fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = fleet.read_text().replace("key: sk", "key: sk-very-secret")
    fleet.write_text(text)
    plan = blueprint(fleet)
    journal = tmp_path / "journal"

    async def start_and_stop() -> None:
        engine = engine_for(journal, 16, plan.secrets)
        await engine.start(plan.catalog, ready_timeout_s=0.01)
        await engine.stop(0.0)

    asyncio.run(start_and_stop())
    assert b"llm/1/default" in journal.read_bytes()
    assert b"very-secret" not in journal.read_bytes()
    started: list[ReplicaSpec] = []
    monkeypatch.setattr("semaforo.live.handles.handle_for", lambda spec, sink: started.append(spec))
    handles(plan.secrets)(plan.catalog.templates["llm/1/default"], Mock(spec=Sink))
    assert started[0].options["key"] == "sk-very-secret"


def test_a_model_behind_a_url_sees_only_public_data_and_is_metered(fleet: Path) -> None:
    variants = blueprint(fleet).catalog.variants
    llm = variants["llm/1/default"]
    assert (llm.sees, variants["net/1/fp32"].sees) == (Privacy.PUBLIC, Privacy.SITE)
    assert llm.cost.input_token == pytest.approx(2e-6)
    assert llm.cost.metered
    assert isinstance(llm.profile, StreamProfile)
    assert llm.profile.slots == 9


def test_all_that_is_wrong_with_files_is_told_at_once_by_line(fleet: Path) -> None:
    (fleet.parent / "models/net/1/model.int8.onnx").unlink()
    (fleet.parent / "models/noted/v2/model.onnx").unlink()
    (fleet.parent / "models/noted/v2").rmdir()
    with pytest.raises(FleetFileError) as caught:
        blueprint(fleet)
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"{fleet}:13: models.net.variants.int8: ")
    assert "has no file 'model.int8.onnx'" in first
    assert second.startswith(f"{fleet}:15: models.noted.versions: ")
    assert "has no version 'v2'; it has v10" in second


def test_what_looks_and_routes_is_told_of_together_with_the_models(fleet: Path) -> None:
    text = FLEET.replace("models/net\n", "models/nothing\n").replace(
        "{kind: chat}", "{kind: chat, router: no.router}"
    )
    fleet.write_text(
        text.replace("within: 5ms}", "within: 5ms}, features: rules.py:look") + "auto: no.model\n"
    )
    with pytest.raises(FleetFileError) as caught:
        blueprint(fleet)
    assert {problem.key for problem in caught.value.problems} == {
        "auto", "tasks.chat.router", "tasks.digits.features", "models.net.source",
    }  # fmt: skip


def test_a_file_that_is_not_the_one_that_was_measured_is_refused(fleet: Path) -> None:
    path = fleet.parent / "models/noted/v10/model.onnx"
    note(path, Measured(0.7, sha256=sha256_of(path)))
    blueprint(fleet)
    path.write_bytes(b"another")
    with pytest.raises(FleetFileError, match="changed or damaged"):
        blueprint(fleet)
