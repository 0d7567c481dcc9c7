"""The Python runtime: how sources are found, arguments converted and results named."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semaforo.errors import InvalidRequest, ModelFailed, RuntimeLoadError
from semaforo.runtime.base import AsyncModel, ChatModel, Model
from semaforo.runtime.python import PythonModel, PythonRuntime
from semaforo.runtime.python_source import register, unregister
from semaforo.runtime.python_values import named_outputs
from semaforo.wire.payload import Chat, ChatChunk


def load(source: str, **options: Any) -> Any:
    return PythonRuntime().load(source, options, "cpu")


def texts(*cells: Any) -> Any:
    return np.array(cells, dtype=object)


def run(source: str, outputs: tuple[str, ...] = ("y",), /, **inputs: Any) -> dict[str, Any]:
    model = load(source)
    model.want(outputs)
    return {name: array.tolist() for name, array in model.run(inputs, {}).items()}


def test_a_function_by_import_string() -> None:
    assert run("python_models:shout", text=texts("a", b"b")) == {"y": ["A", "B"]}
    with pytest.raises(InvalidRequest, match=r"input 'text': .* is not UTF-8"):
        run("python_models:shout", text=texts(b"\xff"))


def test_a_function_of_one_row_is_not_batched() -> None:
    model = load("python_models:length")
    assert not model.signature.batched
    model.want(("n",))
    assert model.run({"text": texts("four")[0:1].reshape(())}, {})["n"] == 4


def test_a_class_is_made_and_loaded_once() -> None:
    model = load("python_models:Counter", args={"start": 5})
    model.want(("sum", "device"))
    got = model.run({"x": np.array([1.0, 2.0])}, {})
    assert got["sum"].tolist() == [6.0, 7.0]
    assert got["device"].tolist() == ["cpu", "cpu"]


def test_a_file_and_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside_the_model.py").write_text("FACTOR = 3\n")
    (tmp_path / "my model.py").write_text(
        "import beside_the_model\ndef triple(x):\n    return x * beside_the_model.FACTOR\n"
    )
    assert run(f"{tmp_path / 'my model.py'}:triple", x=np.array([1, 2])) == {"y": [3, 6]}
    (tmp_path / "broken.py").write_text("raise KeyError('who')\n")
    with pytest.raises(RuntimeLoadError, match="importing it raised KeyError: 'who'"):
        load(f"{tmp_path / 'broken.py'}:f")


def test_a_registered_callable() -> None:
    source = register("double", lambda x: x * 2)
    try:
        assert run(source, x=np.array([4])) == {"y": [8]}
        with pytest.raises(RuntimeLoadError, match="two Python models are named 'double'"):
            register("double", abs)
    finally:
        unregister(source)
    with pytest.raises(RuntimeLoadError, match="no callable is registered as 'double'"):
        load(source)


def test_an_async_function_is_awaited() -> None:
    model = load("python_models:length_later")
    assert isinstance(model, AsyncModel)
    assert not isinstance(model, (Model, ChatModel))
    model.want(("n",))
    got = asyncio.run(model.arun({"text": texts("a", "bcd")}, {"sleep": 0.001}))
    assert got["n"].tolist() == [1, 3]


def chat(source: str, **body: Any) -> list[ChatChunk]:
    async def collect() -> list[ChatChunk]:
        return [chunk async for chunk in load(source).chat(Chat(body))]

    return asyncio.run(collect())


@pytest.mark.parametrize("source", ["python_models:tokens", "python_models:slow_tokens"])
def test_generators_stream(source: str) -> None:
    chunks = chat(source, messages=[{"role": "user", "content": "one two three"}], model="m", temperature=0)
    assert [c.delta.get("content", "").strip() for c in chunks] == ["one", "two", "three", ""]
    assert [c.finish_reason for c in chunks] == [None, None, None, "stop"]
    assert sum(c.tokens for c in chunks) == 3


def test_a_function_of_messages_answers_chats() -> None:
    source = register("reply", lambda messages: f"{len(messages)} messages")
    try:
        assert chat(source, messages=[{}, {}])[0].delta == {"content": "2 messages"}
        with pytest.raises(InvalidRequest, match="needs the field 'messages'"):
            chat(source, prompt="x")
    finally:
        unregister(source)


@pytest.mark.parametrize(
    ("function", "given", "seen"),
    [
        (lambda x: x, np.array([[1.5]]), np.ndarray),
        ("list[float]", np.array([1.5, 2.5]), [1.5, 2.5]),
        ("list[list[int]]", np.array([[1, 2]]), [[1, 2]]),
        ("list[bytes]", texts("a", b"b"), [b"a", b"b"]),
        ("list[dict]", texts('{"a": 1}', b"{}"), [{"a": 1}, {}]),
        ("list[np.ndarray]", np.array([[1, 2]]), list),
        ("list[dict[str, int]]", texts('{"a": 1}'), [{"a": 1}]),
    ],
)
def test_annotations_decide(function: Any, given: Any, seen: Any) -> None:
    got: list[Any] = []
    if isinstance(function, str):
        scope: dict[str, Any] = {"np": np, "got": got}
        exec(f"def f(x: {function}):\n    got.append(x)\n    return [0] * len(x)", scope)
        target = scope["f"]
    else:

        def target(x):  # type: ignore[no-untyped-def]
            got.append(x)
            return [0] * len(x)

    source = register("annotated", target)
    try:
        run(source, x=given)
    finally:
        unregister(source)
    assert isinstance(got[0], seen) if isinstance(seen, type) else got[0] == seen


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("python_models", "names no Python object: write module:object"),
        ("no_such_module:f", "no module named 'no_such_module'"),
        ("python_models:shoot", r"has no 'shoot'\. Did you mean 'shout'"),
        ("python_models:not_callable", "is a int, which cannot be called"),
        ("/no/such/file.py:f", "no such file"),
        ("python_models:broken_import", "takes no inputs"),
    ],
)
def test_wrong_sources_are_named(source: str, words: str) -> None:
    with pytest.raises(RuntimeLoadError, match=words):
        load(source)


def test_wrong_signatures_are_named() -> None:
    def star(*x: int) -> None: ...
    def mixed(a: str, b: list[str]) -> None: ...
    def strange(a: set) -> None: ...  # type: ignore[type-arg]

    for target, words in (
        (star, "has no name to match an input with"),
        (mixed, "one row in some parameters and many in others"),
        (strange, "parameter 'a' is annotated as .*set"),
    ):
        source = register("wrong", target)
        try:
            with pytest.raises(RuntimeLoadError, match=words):
                load(source)
        finally:
            unregister(source)


def test_wrong_options_are_named() -> None:
    with pytest.raises(RuntimeLoadError, match=r"options\.slot: unknown option .* Did you mean 'slots'"):
        load("python_models:shout", slot=2)
    with pytest.raises(RuntimeLoadError, match="is a sync function, which runs one batch at a time"):
        load("python_models:shout", slots=2)
    with pytest.raises(RuntimeLoadError, match="is not a class, so it takes none"):
        load("python_models:shout", args={"a": 1})
    with pytest.raises(RuntimeLoadError, match="loading it raised TypeError"):
        load("python_models:Counter", args={"stop": 1})


def test_results_are_named_by_the_outputs() -> None:
    assert set(named_outputs({"a": [1], "b": [2], "c": [3]}, ("a", "c"))) == {"a", "c"}
    assert {k: v.tolist() for k, v in named_outputs(([1], [2]), ("a", "b")).items()} == {"a": [1], "b": [2]}
    assert named_outputs(["x", "yy"], ("a",))["a"].dtype == object
    for result, names, words in (
        ({"a": [1]}, ("a", "b"), "'b' is missing"),
        ([1, 2], ("a", "b"), "one list for the 2 outputs a, b"),
        (([1],) * 3, ("a", "b"), "a tuple of 3 for the 2 outputs"),
        (None, ("a",), "returned None"),
        ([[1], [1, 2]], ("a",), "rows of unequal shape"),
        ([{1}], ("a",), "returned a set in 'a'"),
    ):
        with pytest.raises(ModelFailed, match=words):
            named_outputs(result, names)


def test_sys_exit_is_an_error_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import sys\nsys.exit('usage: script FILE')\n")
    (tmp_path / "quits.py").write_text(
        "import sys\n"
        "def quit(x): sys.exit(4)\n"
        "async def later(x): sys.exit(4)\n"
        "def steps(messages):\n    yield 'a'\n    sys.exit(4)\n"
        "def reply(messages): sys.exit()\n"
        "class Made:\n    def __init__(self): sys.exit(4)\n    def __call__(self, x): return x\n"
    )
    with pytest.raises(RuntimeLoadError, match="importing it raised SystemExit: usage: script FILE"):
        load(f"{tmp_path / 'script.py'}:f")
    quits = f"{tmp_path / 'quits.py'}:"
    with pytest.raises(RuntimeLoadError, match="loading it raised SystemExit: 4"):
        load(quits + "Made")
    x = {"x": np.array([1])}
    with pytest.raises(RuntimeError, match=r"called sys\.exit\(4\)"):
        load(quits + "quit").run(x, {})
    with pytest.raises(RuntimeError, match=r"called sys\.exit\(4\)"):
        asyncio.run(load(quits + "later").arun(x, {}))

    async def talk(model: ChatModel) -> list[ChatChunk]:
        return [chunk async for chunk in model.chat(Chat({"messages": []}))]

    with pytest.raises(RuntimeError, match=r"called sys\.exit\(4\)"):
        asyncio.run(talk(load(quits + "steps")))
    with pytest.raises(RuntimeError, match=r"called sys\.exit\(\)"):
        asyncio.run(talk(load(quits + "reply")))


def test_a_class_is_spread_over_devices_where_it_can_be(tmp_path: Path) -> None:
    (tmp_path / "spread.py").write_text(
        "class Spread:\n"
        "    def load(self, devices): self.devices = devices\n"
        "    def __call__(self, x): return [' '.join(self.devices)] * len(x)\n"
        "class Alone:\n"
        "    def load(self, device): pass\n"
        "    def __call__(self, x): return x\n"
        "def plain(x): return x\n"
    )
    runtime = PythonRuntime()
    model = runtime.load(f"{tmp_path / 'spread.py'}:Spread", {}, "cuda:0+cuda:1")
    assert isinstance(model, PythonModel)
    assert model.run({"x": np.array([1])}, {})["output"].tolist() == ["cuda:0 cuda:1"]
    for name in ("Alone", "plain"):
        with pytest.raises(RuntimeLoadError, match=r"has no load\(devices\).*cuda:0, cuda:1"):
            runtime.load(f"{tmp_path / 'spread.py'}:{name}", {}, "cuda:0+cuda:1")
