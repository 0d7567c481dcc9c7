"""The fleet file: what it means, and that every error names line, key and the nearest right one."""

from __future__ import annotations

from pathlib import Path

import pytest

from semaforo.config import FleetFile, FleetFileError, load_fleet, parse_fleet
from semaforo.config.tensors import from_upstreams, tensors_of
from semaforo.entities import TensorSpec

GOOD = """\
tasks:
  digits:
    inputs:  {image: fp32[64], note: {type: 'bytes[?]', optional: true}}
    outputs: {label: int64, probabilities: fp32[10]}
    prefer:  {minimise: cost, keep_quality: 0.98}
    deadline: 50ms
    evaluate: data/digits-test.parquet
  photo:
    inputs:  {image: uint8[?x?x3]}
    outputs: {kind: {type: fp32[2], labels: [cat, dog]}}
    prefer: {quality: 1, latency: 0.2, cost: 1e-2}
  chat: {kind: chat}
devices:
  cpu: {price: 0.04/h}
models:
  digits-linear:
    task: digits
    source: models/digits-linear
    version: 1.10
  digits-net:
    task: digits
    source: models/digits-net
    variants: {fp32: model.onnx, int8: {file: model.int8.onnx, quality: 0.97}}
    replicas: 1..4
    isolation: process
  photo-rule:
    task: photo
    python: rules:photo
  local-llm:
    task: chat
    runtime: openai
    url: http://127.0.0.1:11434/v1
    sees: [public, internal, site]
  big-llm:
    task: chat
    url: https://models.example/v1
    key: ${BIG_LLM_KEY}
    cost: {input: 2.50, output: 10.00}
    quality: 0.92
aliases: {best: digits-net}
server:
  http_port: ${PORT:-8081}
  keys: [{key: '${BIG_LLM_KEY}', tenant: demo, roles: [infer, operate]}]
"""


def read(text: str, **environment: str) -> FleetFile:
    return parse_fleet(text, folder=Path("/nowhere"), environment={"BIG_LLM_KEY": "sk-1", **environment})


def problems(text: str, **environment: str) -> list[str]:
    with pytest.raises(FleetFileError) as caught:
        read(text, **environment)
    return str(caught.value).splitlines()


def changed(old: str, new: str) -> list[str]:
    assert GOOD.count(old) == 1, old
    return problems(GOOD.replace(old, new))


def test_a_whole_file_becomes_typed_settings() -> None:
    fleet = read(GOOD).settings
    digits = fleet.tasks["digits"]
    assert digits.inputs["image"].type == TensorSpec("", "FP32", (64,))
    assert (digits.inputs["note"].type.dtype, digits.inputs["note"].optional) == ("BYTES", True)
    assert fleet.tasks["photo"].inputs["image"].type.shape == (-1, -1, 3)
    assert fleet.tasks["photo"].outputs["kind"].labels == ("cat", "dog")
    assert fleet.tasks["photo"].prefer.cost == 0.01
    assert (digits.deadline, digits.prefer.minimise, digits.prefer.keep_quality) == (0.05, "cost", 0.98)
    assert fleet.devices["cpu"].price == pytest.approx(0.04 / 3600)
    assert fleet.models["digits-linear"].version == "1.10"  # a version stays as it is written
    net = fleet.models["digits-net"]
    assert (net.replicas, net.variants["fp32"].file, net.variants["int8"].quality) == (
        (1, 4),
        "model.onnx",
        0.97,
    )
    assert fleet.models["big-llm"].key == "sk-1"
    assert (fleet.server.http_port, fleet.server.keys[0].roles) == (8081, ("infer", "operate"))


def test_the_environment_wins_over_a_default_and_becomes_a_number() -> None:
    assert read(GOOD, PORT="9000").settings.server.http_port == 9000


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("replicas: 1..4", "replica: 1..4",
         "fleet.yaml:24: models.digits-net.replica: unknown key. Did you mean 'replicas'?"),
        ("replicas: 1..4", "replicas: 4..1",
         "fleet.yaml:24: models.digits-net.replicas: '4..1' allows no replica: write the least first, e.g. 1..4"),
        ("replicas: 1..4", "replicas: 1..2000",
         "fleet.yaml:24: models.digits-net.replicas: '1..2000' is more than a machine holds: "
         "at most 1024 replicas"),
        ("isolation: process", "isolation: proces",
         "fleet.yaml:25: models.digits-net.isolation: 'proces' is not one of auto, inline, thread, process. "
         "Did you mean 'process'?"),
        ("deadline: 50ms", "deadline: 50",
         "fleet.yaml:6: tasks.digits.deadline: '50' is not a duration: write it with a unit, "
         "for example 50ms or 2s"),
        ("label: int64", "label: float32[2]",
         "fleet.yaml:4: tasks.digits.outputs.label: 'float32' is not a type; there are bool, uint8, uint16, "
         "uint32, uint64, int8, int16, int32, int64, fp16, fp32, fp64, bytes, bf16. Did you mean 'fp32'?"),
        ("labels: [cat, dog]", "labels: [cat, dog, cow]",
         "fleet.yaml:10: tasks.photo.outputs.kind.labels: 3 labels for 2 classes"),
        ("keep_quality: 0.98", "keep_quality: 98",
         "fleet.yaml:5: tasks.digits.prefer.keep_quality: 98 is out of range: it must be between 0 and 1"),
        ("keep_quality: 0.98", "within: 5ms",
         "fleet.yaml:5: tasks.digits.prefer.within: goes with `maximise: quality`"),
        ("{minimise: cost, keep_quality: 0.98}", "{minimise: cost, latency: 1}",
         "fleet.yaml:5: tasks.digits.prefer: minimise and latency exclude each other: minimise cost, or maximise "
         "quality, or give weights"),
        ("python: rules:photo", "python: rules",
         "fleet.yaml:28: models.photo-rule.python: 'rules' is not an import string: write module:function"),
        ("    python: rules:photo\n", "",
         "fleet.yaml:26: models.photo-rule: has no `source`, `url`, `python` or `graph`: say where the model is"),
        ("    python: rules:photo", "    python: rules:photo\n    source: models/photo",
         "fleet.yaml:26: models.photo-rule: says both source and python: keep one"),
        ("task: photo", "task: foto", "fleet.yaml:27: models.photo-rule.task: no task is named 'foto'. "
         "Did you mean 'photo'?"),
        ("url: http://127.0.0.1:11434/v1", "url: 127.0.0.1:11434/v1",
         "fleet.yaml:32: models.local-llm.url: '127.0.0.1:11434/v1' is not a url: it must begin with http:// or "
         "https://"),
        ("sees: [public, internal, site]", "sees: [public, site]",
         "fleet.yaml:33: models.local-llm.sees: leaves out 'internal', which is less private than the rest: "
         "add it"),
        ("key: ${BIG_LLM_KEY}\n", "key: ${BIG_LLM_KAY}\n",
         "fleet.yaml:37: models.big-llm.key: the variable BIG_LLM_KAY is not set. Set it, or write "
         "${BIG_LLM_KAY:-default}. Did you mean 'BIG_LLM_KEY'?"),
        ("{best: digits-net}", "{best: digits-nett}",
         "fleet.yaml:40: aliases.best: no model or task is named 'digits-nett'. Did you mean 'digits-net'?"),
        ("{best: digits-net}", "{digits: digits-net}",
         "fleet.yaml:40: aliases.digits: a task has this name already"),
        ("price: 0.04/h", "price: 4 cents", "fleet.yaml:14: devices.cpu.price: '4 cents' is not a price: write it "
         "with a unit, for example 0.04/h"),
        ("version: 1.10", "device: gpu", "fleet.yaml:19: models.digits-linear.device: no device is named 'gpu'. "
         "List it under `devices`. Did you mean 'cpu'?"),
        ("version: 1.10", "device: [cuda:0, gpu:1]", "fleet.yaml:19: models.digits-linear.device: no device is "
         "named 'gpu:1'. List it under `devices`."),
        ("version: 1.10", "device: cuda:0+cuda:0",
         "fleet.yaml:19: models.digits-linear.device: 'cuda:0' stands twice"),
        ("version: 1.10", "device: [cuda:0, '']", "fleet.yaml:19: models.digits-linear.device: "),
        ("version: 1.10", "key: abc",
         "fleet.yaml:19: models.digits-linear.key: means nothing for a model with `source`: leave it out"),
        ("{kind: chat}", "{kind: chat, inputs: {a: int64}}",
         "fleet.yaml:12: tasks.chat.inputs: a chat task takes messages and has no tensors"),
        ("    outputs: {label: int64, probabilities: fp32[10]}\n", "",
         "fleet.yaml:2: tasks.digits.outputs: is missing: a task says what goes in and out, e.g. "
         "{image: fp32[64]}"),
    ],
)  # fmt: skip
def test_one_mistake_is_named_alone(old: str, new: str, expected: str) -> None:
    found = changed(old, new)
    if new.startswith("task: foto"):  # then nothing serves the task either
        found = [line for line in found if "no model serves" not in line]
    assert len(found) == 1
    assert found[0].startswith(expected)


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    text = GOOD.replace("50ms", "50").replace("1..4", "0").replace("2.50", "cheap").replace("chat}", "chats}")
    lines = [int(line.split(":")[1]) for line in problems(text)]
    assert lines == sorted(lines)
    assert {6, 12, 24, 38} <= set(lines)


def test_a_key_that_stands_twice_is_an_error() -> None:
    assert changed("replicas: 1..4", "replicas: 2\n    replicas: 1..4") == [
        "fleet.yaml:25: models.digits-net.replicas: stands twice: line 24 has set it already"
    ]


def test_a_name_may_not_be_a_task_and_a_model() -> None:
    found = problems(GOOD.replace("photo-rule:", "photo:"))
    assert found == [
        "fleet.yaml:26: models.photo: a task is named 'photo' too. Rename one: a request names either"
    ]


def test_a_task_without_models_is_an_error() -> None:
    found = problems(GOOD.replace("  chat: {kind", "  poem: {kind: chat}\n  chat: {kind"))
    assert found == [
        "fleet.yaml:12: tasks.poem: no model serves this task. Add one with `task: poem`, or leave the task out"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "fleet.yaml: is empty: a fleet needs at least `tasks` and `models`"),
        ("tasks: [\n", "fleet.yaml:2: is not YAML"),
        ("tasks:\n\tdigits: 1\n", "fleet.yaml:2: is not YAML"),
        ("- a\n", "fleet.yaml:1: a list stands where a mapping of tasks, models"),
        ("tasks: {}\n", "fleet.yaml:1: models: is missing"),
        ("a: &a [*a]\n", "fleet.yaml:1: an anchor contains itself"),
        ("tasks: !!python/object:os.system {}\nmodels: {}\n", ""),
        ("tasks: {a b: {kind: chat}}\nmodels: {}\n", "fleet.yaml:1: tasks.a b: is no name"),
    ],
)
def test_what_is_no_fleet_at_all(text: str, expected: str) -> None:
    if expected:
        assert problems(text)[0].startswith(expected)
    else:
        assert read(text).settings.tasks == {}  # a tag builds nothing: it is read as plain data


def test_anchors_that_expand_without_end_are_refused() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
    )
    assert "more than 100000 values" in problems(bomb)[0]


def test_merge_keys_and_literal_dollars() -> None:
    two = "  photo-two: {<<: &rule {task: photo, python: 'rules:two'}, quality: 0.5}\n"
    three = "  photo-three: {<<: *rule, options: {args: {text: '$${X}'}}}\n"
    text = GOOD.replace("  photo-rule:\n", two + three + "  photo-rule:\n")
    models = read(text).settings.models
    assert (models["photo-two"].quality, models["photo-three"].python) == (0.5, "rules:two")
    assert models["photo-three"].options == {"args": {"text": "${X}"}}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FleetFileError, match=r"none\.yaml: no such file"):
        load_fleet(tmp_path / "none.yaml")


AGREED = """\
tasks:
  embed: {kind: embedding}
  judge: {kind: moderation}
  hear: {kind: transcription}
models:
  near: {task: embed, url: http://127.0.0.1:1/v1}
  own: {task: judge, python: rules:judge}
  ear: {task: hear, url: http://127.0.0.1:1/v1}
  other: {task: hear, python: rules:hear}
"""


def test_kinds_that_openai_offers_bring_their_tensors() -> None:
    fleet = read(AGREED).settings
    inputs, outputs = tensors_of(fleet.tasks["embed"], extras=from_upstreams("embed", fleet))
    assert [str(spec) for spec in (*inputs, *outputs)] == [
        "input: bytes[]",
        "embedding: fp32[?]",
        "tokens: int64[]",
    ]
    # A model of our own need not give more than the answer, so that a task it shares does not hold more.
    for task in ("judge", "hear"):
        _, outputs = tensors_of(fleet.tasks[task], extras=from_upstreams(task, fleet))
        assert [spec.name for spec in outputs] == ["scores" if task == "judge" else "text"]


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (
            "embedding",
            "embedding, outputs: {y: int64}",
            "fleet.yaml:2: tasks.embed.outputs: gives y: int64[]",
        ),
        (
            "embedding",
            "embedding, inputs: {a: bytes, b: bytes}",
            "tasks.embed.inputs: takes a: bytes[], b: bytes[]",
        ),
        (
            "moderation",
            "moderation, outputs: {scores: 'fp32[2]'}",
            "tasks.judge.outputs.scores: has no labels",
        ),
        ("embedding", "tensor, inputs: {x: bytes}, outputs: {y: 'fp32[3]'}", "say which kind it is"),
        ("task: embed, ", "task: embed, context: 3, ", "models.near.context: means nothing"),
    ],
)
def test_tensors_that_a_kind_did_not_agree_on(old: str, new: str, text: str) -> None:
    assert AGREED.count(old) == 1
    found = problems(AGREED.replace(old, new))
    assert len(found) == 1
    assert text in found[0]


def test_a_kind_that_is_misspelt() -> None:
    assert any(
        "Did you mean 'embedding'?" in line for line in problems(AGREED.replace("embedding", "embeding"))
    )
