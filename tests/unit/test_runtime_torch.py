"""The torch runtime: what it says of programs, what it refuses, what it runs."""

from __future__ import annotations

import os
import pickle
import sys
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semaforo.entities import ReplicaSpec, Signature, TensorSpec
from semaforo.errors import InvalidRequest, ModelFailed, RuntimeLoadError
from semaforo.runtime.adapter import plan
from semaforo.runtime.adapter_flow import OutputMismatch
from semaforo.runtime.execute import Executor
from semaforo.runtime.host import load as host
from semaforo.runtime.host import warm
from semaforo.runtime.profile import measure

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from semaforo.runtime.torch import TorchModel, TorchRuntime  # noqa: E402
from semaforo.runtime.torch_devices import present, torch_devices  # noqa: E402
from semaforo.runtime.torch_program import Program  # noqa: E402
from semaforo.runtime.torch_tensors import array_of, named, tensor_of  # noqa: E402

# torch wants programs to be exported; what is saved as TorchScript is loaded all the same.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")

FACTORY = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.last = nn.Linear(8, width)

    def forward(self, x):
        return self.last(self.first(x).relu())


def make(width=3):
    return Net(width)


class Spread(Net):
    def __init__(self, devices):
        super().__init__()
        self.devices = devices
        self.first.to(devices[0])
        self.last.to(devices[-1])

    def forward(self, x):
        return self.last(self.first(x).relu().to(self.devices[-1]))


class Placed(Net):
    def __init__(self, device):
        with torch.device("meta"):
            super().__init__()
        self.told = device


class Writes(Net):
    def forward(self, x):
        return super().forward(x.mul_(2))


class Two(Net):
    def forward(self, x, gain=None):
        y = super().forward(x)
        return y if gain is None else y * gain[:, None], y.argmax(-1)


def number():
    return 5


def broken():
    raise OSError("no such thing")


class Loose(Net):
    def forward(self, *x):
        return x
"""


class Scores(torch.nn.Module):
    """Two outputs with names, of one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        scores = self.layer(x).softmax(-1)
        return {"scores": scores, "label": scores.argmax(-1)}


class Pair(torch.nn.Module):
    def forward(self, a: Any, b: Any) -> Any:
        return a + b, a * b


class Bits(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        return x * 2


class Scale(torch.nn.Module):
    def forward(self, x: Any, gain: Any) -> Any:
        return x * gain


class Table(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(5, 2)

    def forward(self, ids: Any) -> Any:
        return self.words(ids)


class Grows(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        x.add_(1)
        return x * 2


class Huge(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.expand(1 << 24, x.shape[0], 1 << 24).contiguous()[0]


def export(path: Path, module: Any, *inputs: Any, rows: Any = "dynamic") -> Path:
    """Save an exported program; `rows`: dynamic, None for fixed, or a Dim."""
    dims = None
    if rows is not None:
        dim = torch.export.Dim("rows") if rows == "dynamic" else rows
        dims = tuple({0: dim} if value.ndim else None for value in inputs)
    torch.export.save(torch.export.export(module.eval(), inputs, dynamic_shapes=dims), path)
    return path


def load(path: Path, device: str = "cpu", **options: Any) -> TorchModel:
    return TorchRuntime().load(str(path), options, device)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Programs that several tests load: exporting one takes longer than loading it."""
    path = tmp_path_factory.mktemp("torch")
    (path / "net.py").write_text(FACTORY)
    torch.manual_seed(3)
    scores = Scores()
    export(path / "scores.pt2", scores, torch.ones(4, 4))
    export(path / "fixed.pt2", scores, torch.ones(4, 4), rows=None)
    export(path / "one.pt2", scores, torch.ones(1, 4), rows=None)
    sys.path.insert(0, str(path))
    try:
        from net import Net  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(path))
    net = Net()
    safetensors.save_file(net.state_dict(), path / "net.safetensors")
    torch.save(net.state_dict(), path / "net.pt")
    torch.save(net, path / "pickled.pt")
    yield path
    del sys.modules["net"]


def inputs(rows: int) -> Any:
    return np.random.default_rng(rows).standard_normal((rows, 4)).astype("f4")


def scored(folder: Path, x: Any) -> Any:
    with torch.no_grad():
        return torch.export.load(folder / "scores.pt2").module()(torch.tensor(x))["scores"].numpy()


def test_the_signature_is_the_programs_own(folder: Path) -> None:
    model = load(folder / "scores.pt2")
    assert model.signature == Signature(
        (TensorSpec("x", "FP32", (4,)),),
        (TensorSpec("scores", "FP32", (3,)), TensorSpec("label", "INT64", ())),
        batched=True,
    )
    assert model.memory_bytes() == (4 * 3 + 3) * 4
    x = inputs(5)
    got = model.run({"x": x}, {})
    np.testing.assert_array_equal(got["scores"], scored(folder, x))
    np.testing.assert_array_equal(got["label"], got["scores"].argmax(-1))
    model.want(("label",))
    assert set(model.run({"x": x}, {})) == {"label"}
    assert model.run({"x": x[:0]}, {})["label"].shape == (0,)
    model.close()


def test_arrays_that_may_not_be_written_are_not_copied(folder: Path) -> None:
    model = load(folder / "scores.pt2")
    x = inputs(3)
    frozen = np.frombuffer(x.tobytes(), "f4").reshape(3, 4)
    np.testing.assert_array_equal(model.run({"x": frozen}, {})["scores"], model.run({"x": x}, {})["scores"])
    backwards = x[::-1]
    np.testing.assert_array_equal(model.run({"x": backwards}, {})["scores"], scored(folder, backwards.copy()))
    tensor = tensor_of(frozen, "x", bits=False, copy=False)
    assert tensor.data_ptr() == frozen.ctypes.data


def test_a_model_that_writes_to_its_input_gets_a_copy(folder: Path, tmp_path: Path) -> None:
    path = export(tmp_path / "grows.pt2", Grows(), torch.ones(4, 2))
    for model, width in ((load(path), 2), (load(folder / "net.safetensors", module="net.py:Writes"), 4)):
        x = np.ones((3, width), "f4")
        x.flags.writeable = False
        first = model.run({"x": x}, {})["output"]
        np.testing.assert_array_equal(model.run({"x": x}, {})["output"], first)
        assert (x == 1).all()


@pytest.mark.parametrize("rows", [0, 1, 4, 5, 11])
def test_a_fixed_batch_is_filled_up(rows: int, folder: Path) -> None:
    assert not load(folder / "fixed.pt2").signature.batched
    assert load(folder / "fixed.pt2").signature.inputs[0].shape == (4, 4)
    model = load(folder / "fixed.pt2", batched=True)
    assert model.signature.inputs[0].shape == (4,)
    x = inputs(rows)
    np.testing.assert_allclose(model.run({"x": x}, {})["scores"], scored(folder, x), rtol=1e-6)


def test_a_first_dimension_of_one_is_run_row_by_row(folder: Path) -> None:
    model = load(folder / "one.pt2")
    assert (model.signature.batched, model.signature.inputs[0].shape) == (True, (4,))
    x = inputs(3)
    np.testing.assert_allclose(model.run({"x": x}, {})["scores"], scored(folder, x), rtol=1e-6)
    whole = load(folder / "one.pt2", batched=False)
    assert whole.run({"x": x[:1]}, {})["scores"].shape == (1, 3)


@pytest.mark.parametrize("rows", [0, 1, 3, 8, 9, 17])
def test_the_bounds_of_a_dynamic_batch_are_kept(rows: int, folder: Path, bounded: Path) -> None:
    x = inputs(rows)
    got = load(bounded).run({"x": x}, {})["scores"]
    np.testing.assert_allclose(got, scored(folder, x), rtol=1e-6)


@pytest.fixture(scope="module")
def bounded(folder: Path) -> Path:
    torch.manual_seed(3)
    return export(
        folder / "bounded.pt2", Scores(), torch.ones(4, 4), rows=torch.export.Dim("n", min=3, max=8)
    )


def test_outputs_without_names_are_named(tmp_path: Path) -> None:
    pair = (torch.ones(4, 2), torch.ones(4, 2))
    path = export(tmp_path / "pair.pt2", Pair(), *pair)
    a, b = np.full((2, 2), 3, "f4"), np.full((2, 2), 5, "f4")
    assert set(load(path).run({"a": a, "b": b}, {})) == {"output_0", "output_1"}
    model = load(path, outputs=["sum", "product"])
    assert [spec.name for spec in model.signature.outputs] == ["sum", "product"]
    got = model.run({"b": b, "a": a}, {})
    assert (got["sum"][0, 0], got["product"][0, 0]) == (8, 15)
    with pytest.raises(RuntimeLoadError, match=r"options\.outputs: 1 names for the 2 tensors"):
        load(path, outputs=["sum"])


def test_outputs_with_names_keep_them(folder: Path) -> None:
    with pytest.raises(
        RuntimeLoadError, match=r"options\.outputs: scores\.pt2 names them itself: scores, label"
    ):
        load(folder / "scores.pt2", outputs=["a", "b"])


def test_bf16_travels_as_its_bits(tmp_path: Path) -> None:
    model = load(export(tmp_path / "bits.pt2", Bits(), torch.ones(4, 2, dtype=torch.bfloat16)))
    assert (model.signature.inputs[0].dtype, model.signature.outputs[0].dtype) == ("BF16", "BF16")
    bits = (np.array([[1.5, -2.0]], "f4").view("u4") >> 16).astype("u2")
    got = model.run({"x": bits}, {})["output"]
    assert got.dtype == np.uint16
    assert (got.astype("u4") << 16).view("f4").tolist() == [[3.0, -4.0]]
    assert array_of(torch.tensor([1.5], dtype=torch.bfloat16), bits=False).dtype == np.float32


def test_a_scalar_beside_rows_is_told_apart(tmp_path: Path) -> None:
    model = load(export(tmp_path / "scale.pt2", Scale(), torch.ones(4, 2), torch.tensor(2.0)))
    assert model.rowless == {"gain"}
    got = model.run({"x": np.ones((3, 2), "f4"), "gain": np.float32(4)[None].reshape(())}, {})
    assert (got["output"] == 4).all()


def test_input_that_a_program_refuses_is_an_invalid_request(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="refused its input: Guard failed"):
        load(folder / "scores.pt2").run({"x": np.ones((2, 5), "f4")}, {})
    table = load(export(tmp_path / "table.pt2", Table(), torch.tensor([1, 2, 3])))
    assert table.run({"ids": np.array([4])}, {})["output"].shape == (1, 2)
    with pytest.raises(InvalidRequest, match="out of range"):
        table.run({"ids": np.array([5])}, {})


def test_text_is_no_input(folder: Path) -> None:
    model = load(folder / "net.safetensors", module="net.py:make")
    with pytest.raises(RuntimeLoadError, match="gives text in 'x'"):
        model.run({"x": np.array(["a"], dtype=object)}, {})


def test_memory_that_runs_out_is_told_and_the_next_batch_runs(tmp_path: Path) -> None:
    path = tmp_path / "huge.pt"
    torch.jit.script(Huge()).save(path)
    model = load(path)
    with pytest.raises(ModelFailed, match="out of memory on cpu with 2 rows: lower max_batch"):
        model.run({"x": np.ones((2, 1), "f4")}, {})
    with pytest.raises(ModelFailed, match="out of memory"):
        model.run({"x": np.ones((1, 1), "f4")}, {})


def test_torchscript_takes_what_the_task_gives(tmp_path: Path) -> None:
    layer = torch.nn.Linear(4, 3).eval()
    torch.jit.trace(layer, torch.ones(2, 4)).save(tmp_path / "model.pt")
    model = TorchRuntime().load(str(tmp_path), {}, "cpu")
    assert model.signature == Signature((TensorSpec("input", "", ()),), (), batched=True)
    x = inputs(5)
    model.want(("scores",))
    np.testing.assert_array_equal(
        model.run({"input": x}, {})["scores"], layer(torch.tensor(x)).detach().numpy()
    )
    assert model.memory_bytes() == 60


def test_weights_go_into_what_the_factory_makes(folder: Path) -> None:
    x = inputs(5)
    sys.path.insert(0, str(folder))
    try:
        from net import Net  # the module that the fixture made
    finally:
        sys.path.remove(str(folder))
    net = Net()
    net.load_state_dict(safetensors.load_file(folder / "net.safetensors"))
    want = net(torch.tensor(x)).detach().numpy()
    for name, factory in (("net.safetensors", "make"), ("net.pt", "make"), ("net.safetensors", "Placed")):
        model = load(folder / name, module=f"net.py:{factory}")
        assert [spec.name for spec in model.signature.inputs] == ["x"]
        np.testing.assert_array_equal(model.run({"x": x}, {})["output"], want)
        assert model.memory_bytes() == (4 * 8 + 8 + 8 * 3 + 3) * 4
    rough = load(folder / "net.safetensors", module="net.py:make", dtype="bf16")
    got = rough.run({"x": x}, {})["output"]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=0.05)
    assert rough.memory_bytes() == (4 * 8 + 8 + 8 * 3 + 3) * 2
    two = load(folder / "net.safetensors", module="net.py:Two")
    assert [spec.optional for spec in two.signature.inputs] == [False, True]
    two.want(("scores", "label"))
    np.testing.assert_array_equal(two.run({"x": x}, {})["label"], want.argmax(-1))
    two.want(("scores",))
    with pytest.raises(OutputMismatch, match=r"returned 2 tensors for the 1 outputs scores"):
        two.run({"x": x}, {})


def test_a_factory_may_spread_its_module(folder: Path) -> None:
    one = load(folder / "net.safetensors", module="net.py:make")
    both = load(folder / "net.safetensors", "cpu+cpu", module="net.py:Spread")
    x = inputs(4)
    np.testing.assert_array_equal(both.run({"x": x}, {})["output"], one.run({"x": x}, {})["output"])
    with pytest.raises(
        RuntimeLoadError, match="takes no 'devices', so its module cannot be spread over cpu, cpu"
    ):
        load(folder / "net.safetensors", "cpu+cpu", module="net.py:make")
    with pytest.raises(
        RuntimeLoadError, match="an exported program, which runs on one device, not on cpu, cpu"
    ):
        load(folder / "scores.pt2", "cpu+cpu")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        (
            "scores.pt2",
            {"thread": 2},
            r"options\.thread: unknown option of the runtime 'torch'\. Did you mean",
        ),
        ("scores.pt2", {"dtype": "fp8"}, r"options\.dtype: "),
        ("scores.pt2", {"dtype": "bf16"}, r"options\.dtype: goes with options\.module"),
        ("scores.pt2", {"args": {"a": 1}}, r"options\.args: goes with options\.module"),
        ("scores.pt2", {"module": "net.py:make"}, "an exported program holds its module"),
        ("net.safetensors", {}, r"holds weights and no program: name the factory"),
        ("net.pt", {}, r"holds weights and no program"),
        (
            "net.safetensors",
            {"module": "net.py:mak"},
            r"options\.module: .*has no 'mak'\. Did you mean 'make'",
        ),
        ("net.safetensors", {"module": "nat.py:make"}, r"options\.module: .*nat\.py: no such file"),
        ("net.safetensors", {"module": "make"}, r"options\.module: 'make' names no Python object"),
        ("net.safetensors", {"module": "net.py:number"}, "made a int: return an nn.Module"),
        ("net.safetensors", {"module": "net.py:broken"}, "raised OSError: no such thing"),
        ("net.safetensors", {"module": "net.py:make", "args": {"wide": 1}}, "raised TypeError.*'wide'"),
        (
            "net.safetensors",
            {"module": "net.py:make", "args": {"width": 5}},
            "not those of net.py:make: .*size mismatch",
        ),
        (
            "net.safetensors",
            {"module": "net.py:Loose"},
            "forward of 'net.py:Loose' takes '.x', which has no name",
        ),
        ("net.py", {"module": "net.py:make"}, "its weights cannot be read|holds pickled objects"),
        ("none.pt2", {}, "no such file or folder"),
    ],
)
def test_what_is_wrong_is_named(name: str, options: dict[str, Any], words: str, folder: Path) -> None:
    with pytest.raises(RuntimeLoadError, match=words):
        load(folder / name, **options)


def test_weights_of_another_module_are_named(folder: Path, tmp_path: Path) -> None:
    safetensors.save_file(
        {"first.weight": torch.ones(8, 4), "other": torch.ones(1)}, tmp_path / "a.safetensors"
    )
    with pytest.raises(
        RuntimeLoadError, match=r"missing first\.bias, last\.weight, last\.bias, unknown other"
    ):
        load(tmp_path / "a.safetensors", module=f"{folder / 'net.py'}:make")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    (tmp_path / "bad.pt2").write_bytes(b"nothing")
    with pytest.raises(RuntimeLoadError, match=r"bad\.safetensors: its weights cannot be read"):
        load(tmp_path / "bad.safetensors", module=f"{folder / 'net.py'}:make")
    with pytest.raises(RuntimeLoadError, match=r"bad\.pt2: is no exported program"):
        load(tmp_path / "bad.pt2")


def test_devices_that_are_not_there_list_those_that_are() -> None:
    assert present()[0] == "cpu"
    with pytest.raises(RuntimeLoadError, match=r"device 'cuda:63' was asked for, and this torch .* has cpu"):
        torch_devices("cuda:63")
    with pytest.raises(RuntimeLoadError, match=r"device 'cude:0': unknown kind\. Did you mean 'cuda'"):
        torch_devices("cpu+cude:0")
    with pytest.raises(RuntimeLoadError, match="write cpu, cuda:0"):
        torch_devices("cuda:x")


OPAQUE = (
    b'{"config": {"c": {"path_name": "opaque_obj_0", "is_param": false, "use_pickle": true, '
    b'"tensor_meta": null}}}'
)


class _Trap:
    """Makes a folder where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_nothing_is_unpickled_unless_allowed(folder: Path, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    torch.save({"first.weight": _Trap(sprung)}, tmp_path / "trap.pt")
    with pytest.raises(RuntimeLoadError, match=r"holds pickled objects beside tensors.*allow_pickle: true"):
        load(tmp_path / "trap.pt", module=f"{folder / 'net.py'}:make")
    with pytest.raises(RuntimeLoadError, match="holds pickled objects"):
        load(folder / "pickled.pt", module="net.py:make")
    assert not sprung.exists()
    sys.path.insert(0, str(folder))
    try:
        allowed = load(folder / "pickled.pt", module="net.py:make", allow_pickle=True)
    finally:
        sys.path.remove(str(folder))
    want = load(folder / "net.safetensors", module="net.py:make").run({"x": inputs(2)}, {})
    np.testing.assert_array_equal(allowed.run({"x": inputs(2)}, {})["output"], want["output"])


@pytest.mark.parametrize(
    "where", ["data/sample_inputs/model.pt", "data/weights/weight_0", "data/constants/opaque_obj_0"]
)
def test_pickles_inside_an_exported_program_are_refused(where: str, folder: Path, tmp_path: Path) -> None:
    sprung, path = tmp_path / "sprung", tmp_path / "trap.pt2"
    torch.save(((_Trap(sprung),), {}), tmp_path / "trap.pt")
    trap = (tmp_path / "trap.pt").read_bytes()
    if "opaque" in where:
        trap = pickle.dumps(_Trap(sprung))
    with zipfile.ZipFile(folder / "scores.pt2") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = trap if name.endswith(where) else old.read(name)
            if "weight_0" in where and name.endswith("weights_config.json"):
                content = content.replace(b'"use_pickle": false', b'"use_pickle": true')
                assert b'"use_pickle": true' in content
            if "opaque" in where and name.endswith("constants_config.json"):
                content = OPAQUE
            new.writestr(name, content)
        if "opaque" in where:
            new.writestr(f"trap/{where}", trap)
    with pytest.raises(RuntimeLoadError, match="allow_pickle: true"):
        load(path)
    assert not sprung.exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_libraries_compiled_ahead_are_refused(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "compiled.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("compiled/data/aotinductor/model/model.so", b"")
    with pytest.raises(RuntimeLoadError, match="a library compiled ahead of time"):
        load(path)


def test_what_a_module_may_return() -> None:
    one = torch.ones(2)
    assert list(named(one, ())) == ["output"]
    assert list(named([one, one], ())) == ["output_0", "output_1"]
    assert list(named(namedtuple("Found", "a b")(one, one), ("b",))) == ["b"]
    for result, names, words in (
        ({"a": one}, ("b",), "returned a; 'b' is missing"),
        ({"a": 1}, (), "returned a int in 'a'"),
        (5, (), "returned a int: return tensors"),
        (one.to(torch.complex64), (), "complex64 in 'output', which no V2 datatype holds"),
    ):
        with pytest.raises(OutputMismatch, match=words):
            named(result, names)


def test_it_is_hosted_measured_and_bridged(folder: Path) -> None:
    spec = ReplicaSpec(
        "r", "v", "torch", str(folder / "net.safetensors"),
        options={"module": "net.py:make"}, max_rows=8,
        inputs=({"name": "image", "dtype": "FP32", "shape": (2, 2)},),
        outputs=({"name": "label", "dtype": "INT64", "shape": ()},),
        adapter={
            "inputs": {"x": {"from": "image", "reshape": [4]}},
            "outputs": {"label": {"from": "logits", "argmax": True}},
        },
    )  # fmt: skip
    hosted = host(spec)
    warm(spec, hosted)
    assert hosted.profile is not None
    assert hosted.memory_bytes > 0
    hosted.close()


def test_a_compiler_that_fails_is_told_when_it_is_loaded() -> None:
    from torch._dynamo.exc import TorchDynamoException

    def call(given: Any) -> Any:
        raise TorchDynamoException("no C++ compiler")

    program = Program(call, Signature((TensorSpec("x"),), (TensorSpec("y"),)), 0, ("y",))
    model = TorchModel(program, torch_devices("cpu"), compiled=True)
    with pytest.raises(RuntimeLoadError, match=r"warming up: options\.compile: .*no C\+\+ compiler"):
        measure(Executor(model, plan((), (), model.signature)), 1)
