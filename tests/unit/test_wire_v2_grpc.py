"""Messages of gRPC to tensors and back, without a server."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semaforo.entities import DTYPES, TaskType, TensorSpec
from semaforo.errors import ERRORS, Cancelled, InvalidRequest, Refused, SemaforoError
from semaforo.wire.grpc_status import details, error_metadata, status_name
from semaforo.wire.inference_messages import ModelInferRequest
from semaforo.wire.payload import Tensors
from semaforo.wire.v2_contents import FIELDS
from semaforo.wire.v2_dtypes import to_blob
from semaforo.wire.v2_grpc import GrpcCodec, parsed

ROOT = Path(__file__).parents[2]
SAMPLES: dict[str, list[Any]] = {
    "BOOL": [True, False, True], "BYTES": [b"a", b"\x00\xff", b""], "FP16": [0.5, -2, 1], "BF16": [1, 2, 3],
    "FP32": [0.5, float("nan"), -1e30], "FP64": [0.1, 1e300, -1], "INT8": [-128, 127, 0],
    "INT16": [-(2**15), 2**15 - 1, 0], "INT32": [-(2**31), 2**31 - 1, 0], "INT64": [-(2**63), 2**63 - 1, 0],
    "UINT8": [0, 255, 1], "UINT16": [0, 2**16 - 1, 1], "UINT32": [0, 2**32 - 1, 1],
    "UINT64": [0, 2**64 - 1, 1],
}  # fmt: skip


def echo(dtype: str) -> GrpcCodec:
    return GrpcCodec(
        TaskType("echo", inputs=(TensorSpec("x", dtype, (-1,)),), outputs=(TensorSpec("y", dtype, (-1,)),))
    )


def sample(dtype: str) -> Any:
    return np.array([SAMPLES[dtype]], DTYPES[dtype])


def request(dtype: str = "FP32", shape: tuple[int, ...] = (1, 3), **more: Any) -> Any:
    asked = ModelInferRequest(model_name="echo", **more)
    asked.inputs.add(name="x", datatype=dtype, shape=shape)
    return asked


def same(first: Any, second: Any) -> bool:
    return bool(
        first.dtype == second.dtype and first.shape == second.shape and to_list(first) == to_list(second)
    )


def to_list(array: Any) -> str:
    return str(array.tolist())


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_every_dtype_goes_there_and_back_in_raw(dtype: str) -> None:
    codec, array = echo(dtype), sample(dtype)
    asked = request(dtype, id="7")
    asked.raw_input_contents.append(to_blob(dtype, array))
    call = codec.decode(ModelInferRequest.FromString(asked.SerializeToString()))
    assert same(call.tensors.arrays["x"], array)
    assert (call.ref.rows, call.ref.bytes) == (1, len(asked.raw_input_contents[0]))
    answer = codec.encode(call, Tensors({"y": array}), "m", "2")
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "2", "7")
    [output] = answer.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("y", dtype, [1, 3])
    assert list(answer.raw_output_contents) == [to_blob(dtype, array)]
    assert not output.HasField("contents")


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_every_dtype_but_two_goes_there_and_back_in_typed_fields(dtype: str) -> None:
    codec, array = echo(dtype), sample(dtype)
    asked = request(dtype)
    if dtype not in FIELDS:
        with pytest.raises(InvalidRequest, match=f"{dtype} travels only as binary"):
            codec.decode(asked)
        return
    field = FIELDS[dtype]
    getattr(asked.inputs[0].contents, field).extend(array.ravel().tolist())
    call = codec.decode(asked)
    assert same(call.tensors.arrays["x"], array)
    answer = codec.encode(call, Tensors({"y": array}), "m", "2")
    assert not answer.raw_output_contents
    assert str(list(getattr(answer.outputs[0].contents, field))) == str(array.ravel().tolist())


def test_outputs_without_a_typed_field_come_in_raw_to_who_sends_typed_ones() -> None:
    codec = GrpcCodec(
        TaskType("t", inputs=(TensorSpec("x"),), outputs=(TensorSpec("y", "FP16"), TensorSpec("z")))
    )
    asked = request(shape=(2,))
    asked.inputs[0].contents.fp32_contents.extend([1, 2])
    call = codec.decode(asked)
    result = Tensors({"y": np.ones(2, np.float16), "z": np.ones(2, np.float32)})
    assert len(codec.encode(call, result, "m", "1").raw_output_contents) == 2
    asked.parameters["binary_data_output"].bool_param = False
    with pytest.raises(InvalidRequest, match="output 'y' is FP16, which travels only as binary"):
        codec.decode(asked)


def test_who_sends_raw_may_ask_for_typed_and_the_other_way() -> None:
    codec = echo("FP32")
    raw, typed = request(), request()
    raw.raw_input_contents.append(bytes(12))
    typed.inputs[0].contents.fp32_contents.extend([1, 2, 3])
    for asked, binary in ((raw, False), (typed, True)):
        asked.parameters["binary_data_output"].bool_param = binary
        answer = codec.encode(codec.decode(asked), Tensors({"y": sample("FP32")}), "m", "1")
        assert bool(answer.raw_output_contents) == binary


@pytest.mark.parametrize("typed", [True, False])
def test_classes_are_texts(typed: bool) -> None:
    task = TaskType(
        "t", inputs=(TensorSpec("x"),), outputs=(TensorSpec("y", "FP32", (3,), labels=("a", "b")),)
    )
    codec = GrpcCodec(task)
    asked = request(shape=(1,))
    if typed:
        asked.inputs[0].contents.fp32_contents.append(1)
    else:
        asked.raw_input_contents.append(bytes(4))
    asked.outputs.add(name="y").parameters["classification"].int64_param = 2
    answer = codec.encode(codec.decode(asked), Tensors({"y": np.array([[1, 3, 2]], np.float32)}), "m", "1")
    assert (answer.outputs[0].datatype, list(answer.outputs[0].shape)) == ("BYTES", [1, 2])
    if typed:
        assert list(answer.outputs[0].contents.bytes_contents) == [b"3.0:1:b", b"2.0:2"]
    else:
        assert answer.raw_output_contents[0] == b"\x07\0\0\x003.0:1:b\x05\0\0\x002.0:2"


def test_parameters_are_plain_values() -> None:
    asked = request()
    asked.raw_input_contents.append(bytes(12))
    asked.parameters["flag"].bool_param = False
    asked.parameters["count"].int64_param = -3
    asked.parameters["word"].string_param = "x"
    asked.parameters["share"].double_param = 0.5
    asked.parameters["priority"].uint64_param = 1
    call = echo("FP32").decode(asked)
    assert call.parameters == {"flag": False, "count": -3, "word": "x", "share": 0.5, "priority": 1}


def _raw(asked: Any, *blobs: bytes) -> None:
    asked.raw_input_contents.extend(blobs)


def _typed(asked: Any, field: str, *elements: Any) -> None:
    getattr(asked.inputs[0].contents, field).extend(elements)


@pytest.mark.parametrize(
    ("dtype", "shape", "fill", "text"),
    [
        ("FP32", (1, 3), lambda r: None, r"needs 3 elements, data has 0"),
        ("FP32", (1, 3), lambda r: _raw(r, bytes(11)), r"FP32 with shape \[1, 3\] needs 12 bytes"),
        ("FP32", (1, 3), lambda r: _raw(r, bytes(12), b""), "has 2 entries for 1 inputs"),
        ("FP32", (3,), lambda r: _raw(r, bytes(12)), r"has shape \[3\]; it takes \[rows, any\]"),
        ("FP32", (1, -3), lambda r: _raw(r, bytes(12)), "dimensions are 0 or more"),
        ("FP32", (-1, 3), lambda r: _raw(r, bytes(12)), "dimensions are 0 or more"),
        ("FP32", (0, 3), lambda r: _raw(r, b""), "has no rows"),
        ("FP32", (2**62, 2**62), lambda r: _raw(r, bytes(12)), "needs .* bytes"),
        ("FP64", (1, 3), lambda r: _raw(r, bytes(24)), "is FP64; task 'echo' takes FP32"),
        ("fp32", (1, 3), lambda r: _raw(r, bytes(12)), "no V2 datatype. Did you mean 'FP32'"),
        ("FP32", (1, 1), lambda r: _typed(r, "int_contents", 1), "goes in fp32_contents, and int_contents is"),
        ("FP32", (1, 3), lambda r: _typed(r, "fp32_contents", 1), "needs 3 elements, data has 1"),
        (
            "FP32",
            (1, 1),
            lambda r: (_typed(r, "fp32_contents", 1), _raw(r, bytes(4))),
            "has contents, and there is raw_input_contents",
        ),
        ("FP32", (1, 1), lambda r: (_raw(r, bytes(4)), r.inputs.append(r.inputs[0]), _raw(r, b"")), "given twice"),
        ("FP32", (1, 1), lambda r: (_raw(r, bytes(4)), r.outputs.add(name="z")), "gives no output 'z'"),
        ("FP32", (1, 1), lambda r: (_raw(r, bytes(4)), r.parameters["p"]), "parameter p has no value"),
        (
            "FP32",
            (1, 1),
            lambda r: setattr(r.inputs[0].parameters["shared_memory_region"], "string_param", "m"),
            "shared memory is not served",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(dtype: str, shape: tuple[int, ...], fill: Any, text: str) -> None:
    asked = request(dtype, shape)
    fill(asked)
    with pytest.raises(InvalidRequest, match=text):
        echo("FP32").decode(asked)


@pytest.mark.parametrize(
    ("dtype", "value"), [("INT8", 128), ("INT8", -129), ("INT16", 2**15), ("UINT8", 256), ("UINT16", 2**16)]
)
def test_a_number_that_is_too_large_is_not_cut(dtype: str, value: int) -> None:
    asked = request(dtype, (1, 1))
    _typed(asked, FIELDS[dtype], value)
    with pytest.raises(InvalidRequest, match=f"data is not all {dtype}"):
        echo(dtype).decode(asked)


def test_an_input_that_is_missing_is_named() -> None:
    codec = GrpcCodec(TaskType("two", inputs=(TensorSpec("x"), TensorSpec("w")), outputs=(TensorSpec("y"),)))
    asked = request(shape=(2,))
    _raw(asked, bytes(8))
    with pytest.raises(InvalidRequest, match="also takes the input w"):
        codec.decode(asked)
    asked.inputs.add(name="w", datatype="FP32", shape=[3])
    _raw(asked, bytes(12))
    with pytest.raises(InvalidRequest, match="inputs 'x' and 'w' have 2 and 3 rows"):
        codec.decode(asked)


def test_mangled_messages_are_decoded_or_refused() -> None:
    """Cut, flipped and repeated bytes of good messages: a `Call`, or an error that blames the request."""
    chance = random.Random(11)
    bodies = []
    for dtype in DTYPES:
        raw = request(dtype, id="i")
        _raw(raw, to_blob(dtype, sample(dtype)))
        raw.parameters["priority"].uint64_param = 2
        raw.outputs.add(name="y").parameters["classification"].int64_param = 1
        bodies.append((dtype, raw.SerializeToString()))
        if dtype in FIELDS:
            typed = request(dtype)
            _typed(typed, FIELDS[dtype], *sample(dtype).ravel().tolist())
            bodies.append((dtype, typed.SerializeToString()))
    decoded = refused = 0
    for round in range(4000):
        dtype, body = bodies[round % len(bodies)]
        mangled = bytearray(body)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(mangled))
            match chance.randrange(4):
                case 0:
                    mangled[at] ^= 1 << chance.randrange(8)
                case 1:
                    mangled[at] = chance.randrange(256)
                case 2:
                    mangled = mangled[: at + 1]
                case _:
                    mangled[at:at] = mangled[at : at + chance.randint(1, 8)]
        try:
            call = echo(dtype).decode(parsed(ModelInferRequest, bytes(mangled)))
        except InvalidRequest:
            refused += 1
        else:
            assert call.tensors.rows == call.ref.rows
            decoded += 1
    assert decoded > 100
    assert refused > 1000


def test_every_error_has_a_status_code() -> None:
    for error in ERRORS.values():
        assert status_name(error("x")) != "OK"
    assert status_name(InvalidRequest("x")) == "INVALID_ARGUMENT"
    assert status_name(Cancelled("x")) == "UNAVAILABLE"
    assert status_name(SemaforoError("x")) == "INTERNAL"
    metadata = dict(error_metadata(Refused("x", retry_after_s=0.25), "abc", pushback=True))
    assert metadata["semaforo-request-id"] == "abc"
    assert metadata["semaforo-retry-after-ms"] == metadata["grpc-retry-pushback-ms"] == "250"
    assert "semaforo-retry-after-ms" not in dict(error_metadata(Refused("x"), "abc", pushback=True))
    assert len(details(SemaforoError("x" * 9000))) == 2000


def test_the_descriptor_is_what_the_proto_compiles_to() -> None:
    pytest.importorskip("grpc_tools")
    script = [sys.executable, str(ROOT / "scripts/messages.py"), "--check"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("order", ["ours first", "theirs first"])
def test_a_client_with_stubs_of_the_same_package_may_live_in_the_process(order: str) -> None:
    imports = ["from semaforo.wire.inference_messages import ModelInferRequest as ours",
               "from tritonclient.grpc.service_pb2 import ModelInferRequest as theirs"]  # fmt: skip
    if order == "theirs first":
        imports.reverse()
    use = (
        "asked = theirs(model_name='m', id='7'); asked.inputs.add(name='x', datatype='FP32', shape=[1])\n"
        "read = ours.FromString(asked.SerializeToString())\n"
        "assert type(read) is not type(asked) and read.inputs[0].shape[0] == 1\n"
        "assert theirs.FromString(read.SerializeToString()) == asked"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join([*imports, use])],
        capture_output=True, text=True, timeout=30, env={"PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_names_and_numbers_are_those_that_clients_use() -> None:
    """Each field that is served is, by name, number and type, what a client's own definition says."""
    theirs = pytest.importorskip("tritonclient.grpc.service_pb2").DESCRIPTOR
    ours = ModelInferRequest.DESCRIPTOR.file

    def compare(mine: Any, other: Any) -> None:
        for field in mine.fields:
            known = other.fields_by_name[field.name]
            assert (field.number, field.type) == (known.number, known.type), field.full_name
        for name, nested in mine.nested_types_by_name.items():
            compare(nested, other.nested_types_by_name[name])

    model_config = {m.name: m for d in theirs.dependencies for m in d.message_types_by_name.values()}
    for name, mine in ours.message_types_by_name.items():
        compare(mine, theirs.message_types_by_name.get(name) or model_config[name])
    for method in ours.services_by_name["GRPCInferenceService"].methods:
        known = theirs.services_by_name["GRPCInferenceService"].methods_by_name[method.name]
        assert method.input_type.full_name == known.input_type.full_name
        assert method.output_type.full_name == known.output_type.full_name
    for enum in ours.enum_types_by_name.values():
        [config] = theirs.dependencies
        known_enum = config.enum_types_by_name[enum.name]
        assert {v.name: v.number for v in enum.values} == {v.name: v.number for v in known_enum.values}
