"""V2 requests and answers as bytes: JSON, binary, every dtype, every way to be wrong."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semaforo.entities import DTYPES, TaskType, TensorSpec
from semaforo.errors import InvalidRequest
from semaforo.wire.payload import Tensors
from semaforo.wire.v2 import V2Codec

JSON_DTYPES = [name for name in DTYPES if name not in ("FP16", "BF16")]
DIGITS = TaskType(
    "digits",
    inputs=(TensorSpec("image", "FP32", (4,)),),
    outputs=(TensorSpec("label", "INT64"), TensorSpec("scores", "FP32", (3,), labels=("zero", "one", "two"))),
)
CODEC = V2Codec(DIGITS)


def task(dtype: str, shape: tuple[int, ...] = (3,), **more: Any) -> TaskType:
    return TaskType(
        "t", inputs=(TensorSpec("x", dtype, shape),), outputs=(TensorSpec("y", dtype, shape),), **more
    )


def body(data: Any, shape: Any = (1, 4), name: str = "image", datatype: str = "FP32", **more: Any) -> bytes:
    tensor = {"name": name, "shape": list(shape), "datatype": datatype, "data": data}
    return json.dumps({"inputs": [tensor], **more}).encode()


def refused(match: str, raw: bytes, header: int | None = None, codec: V2Codec = CODEC) -> None:
    with pytest.raises(InvalidRequest, match=match):
        codec.decode(raw, header)


SAMPLES: dict[str, list[Any]] = {
    "BOOL": [True, False, True],
    "UINT8": [0, 7, 255],
    "UINT16": [0, 7, 65535],
    "UINT32": [0, 7, 2**32 - 1],
    "UINT64": [0, 7, 2**64 - 1],
    "INT8": [-128, 0, 127],
    "INT16": [-(2**15), 0, 2**15 - 1],
    "INT32": [-(2**31), 0, 2**31 - 1],
    "INT64": [-(2**63), 0, 2**63 - 1],
    "FP32": [-1.5, 0.0, 3.25],
    "FP64": [-1e300, 0.1, 3.25],
    "BYTES": ["", "grüße", "x" * 1000],
}


@pytest.mark.parametrize("dtype", JSON_DTYPES)
@pytest.mark.parametrize("nested", [False, True])
def test_json_of_every_dtype_goes_there_and_back(dtype: str, nested: bool) -> None:
    codec = V2Codec(task(dtype))
    values = SAMPLES[dtype]
    data = [values, values[::-1]] if nested else values + values[::-1]
    call = codec.decode(body(data, (2, 3), "x", dtype, id="42"))
    array = call.tensors.arrays["x"]
    assert array.shape == (2, 3)
    assert array.dtype == np.dtype(DTYPES[dtype])
    assert array.ravel().tolist() == values + values[::-1]
    assert call.ref.rows == 2
    answer, json_length = codec.encode(call, Tensors({"y": array}), "m", "v10")
    assert json_length is None
    assert json.loads(answer) == {
        "model_name": "m",
        "model_version": "v10",
        "id": "42",
        "outputs": [{"name": "y", "datatype": dtype, "shape": [2, 3], "data": values + values[::-1]}],
    }


@pytest.mark.parametrize("dtype", DTYPES)
def test_binary_of_every_dtype_goes_there_and_back(dtype: str) -> None:
    codec = V2Codec(task(dtype))
    if dtype == "BYTES":
        strings = [b"", b"\xff\x00", b"x" * 300]
        blob = b"".join(struct.pack("<I", len(s)) + s for s in strings)
    else:
        source = [1, 0, 1] if dtype == "BOOL" else [1, 2, 3]
        blob = np.array(source, DTYPES[dtype]).tobytes()
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "x",
                    "shape": [1, 3],
                    "datatype": dtype,
                    "parameters": {"binary_data_size": len(blob)},
                }
            ],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    call = codec.decode(head + blob, len(head))
    assert call.ref.bytes == len(blob)
    answer, json_length = codec.encode(call, Tensors({"y": call.tensors.arrays["x"]}), "m", "1")
    assert json_length is not None
    told = json.loads(answer[:json_length])["outputs"][0]
    assert told == {
        "name": "y",
        "datatype": dtype,
        "shape": [1, 3],
        "parameters": {"binary_data_size": len(blob)},
    }
    assert answer[json_length:] == blob


def test_blobs_follow_in_the_order_of_tensors_and_json_may_stand_between() -> None:
    codec = V2Codec(TaskType("t", inputs=tuple(TensorSpec(n, "INT32") for n in "abc")))
    blobs = np.array([1, 2], "<i4").tobytes() + np.array([3, 4], "<i4").tobytes()
    inputs: list[dict[str, Any]] = [{"name": n, "shape": [2], "datatype": "INT32"} for n in "abc"]
    inputs[0]["parameters"] = inputs[2]["parameters"] = {"binary_data_size": 8}
    inputs[1]["data"] = [8, 9]
    head = json.dumps({"inputs": inputs}).encode()
    arrays = codec.decode(head + blobs, len(head)).tensors.arrays
    assert {name: array.tolist() for name, array in arrays.items()} == {"a": [1, 2], "b": [8, 9], "c": [3, 4]}


def test_a_boolean_byte_other_than_0_and_1_is_true() -> None:
    blob = b"\x00\x02\xff"
    tensor = {"name": "x", "shape": [1, 3], "datatype": "BOOL", "parameters": {"binary_data_size": 3}}
    head = json.dumps({"inputs": [tensor]}).encode()
    array = V2Codec(task("BOOL")).decode(head + blob, len(head)).tensors.arrays["x"]
    assert array.tobytes() == b"\x00\x01\x01"


def test_a_raw_request_is_the_blob_of_the_only_input() -> None:
    call = CODEC.decode(np.arange(8, dtype="<f4").tobytes(), 0)
    assert call.tensors.arrays["image"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert call.ref.rows == 2
    assert call.binary
    text = V2Codec(task("BYTES", ())).decode(b"hello", 0)
    assert text.tensors.arrays["x"].tolist() == [b"hello"]
    refused("one row is 16 bytes, the raw body has 15", b"x" * 15, 0)
    refused("the raw body has 0", b"", 0)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4))
@settings(max_examples=60, deadline=None)
def test_every_fp32_survives_json(values: list[float]) -> None:
    call = CODEC.decode(body(values))
    array = call.tensors.arrays["image"]
    assert array.tolist() == [values]
    answer, _ = CODEC.encode(call, Tensors({"scores": array}), "m", "1")
    assert json.loads(answer)["outputs"][0]["data"] == values


def test_nan_is_null_both_ways() -> None:
    call = CODEC.decode(body([1, None, 2, None]))
    array = call.tensors.arrays["image"]
    assert np.isnan(array[0, 1])
    answer, _ = CODEC.encode(call, Tensors({"scores": array}), "m", "1")
    assert json.loads(answer)["outputs"][0]["data"] == [1.0, None, 2.0, None]


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (b"", "not a V2 inference request"),
        (b"{", "not a V2 inference request"),
        (b"[]", "Expected `object`"),
        (b"{}", "missing required field `inputs`"),
        (b'{"inputs": [{"name": "image"}]}', r"missing required field `shape` - at `\$.inputs\[0\]`"),
        (b"[" * 100_000, "nested too deeply|not a V2"),
        (b'{"inputs": [], "x": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"inputs": []}', "also takes the input image"),
        (body([1, 2, 3]), r"shape \[1, 4\] needs 4 elements, data has 3"),
        (body([1, 2, 3, 4, 5]), r"shape \[1, 4\] needs 4 elements, data has 5"),
        (body([[1, 2], [3, 4]]), "not nested as its shape"),
        (body([[1, 2, 3], [4]], (2, 2)), "has shape"),
        (body([[1, 2, 3, 4], [1, 2, 3, 4]]), "needs 4 elements, data has 8"),
        (body([[[1, 2, 3, 4]]]), "not nested as its shape"),
        (body([1, 2, 3, "4"]), "not all FP32.*got `str`"),
        (body([1, 2, 3, True]), "not all FP32.*got `bool`"),
        (body([1, 2, 3, 1e39]), "not all FP32"),
        (body([[1, 2, 3, "4"]]), "not all FP32"),
        (body("abcd"), "data is a list"),
        (body(None), "data is a list"),
        (body([1, 2, 3, 4], (4,)), r"has shape \[4\]; it takes \[rows, 4\]"),
        (body([1, 2, 3, 4], (2, 2)), r"has shape \[2, 2\]; it takes \[rows, 4\]"),
        (body([], (0, 4)), "has no rows"),
        (body([1, 2, 3, 4], (-1, 4)), "Expected `int` >= 0"),
        (body([1, 2, 3, 4], (1, 4), "imagge"), "takes no input 'imagge'. Did you mean 'image'"),
        (body([1, 2, 3, 4], datatype="FP64"), "is FP64; task 'digits' takes FP32"),
        (body([1, 2, 3, 4], datatype="float32"), "'float32' is no V2 datatype"),
        (body([1, 2, 3, 4], datatype="fp32"), "Did you mean 'FP32'"),
        (body([1, 2, 3, 4], outputs=[{"name": "lable"}]), "gives no output 'lable'. Did you mean 'label'"),
        (body([1, 2, 3, 4], parameters={"binary_data_output": 1}), "binary_data_output is true or false"),
        (
            body([1, 2, 3, 4], outputs=[{"name": "scores", "parameters": {"classification": -1}}]),
            "classification is a number",
        ),
        (
            body([1, 2, 3, 4], outputs=[{"name": "scores", "parameters": {"shared_memory_region": "r"}}]),
            "shared memory is not served",
        ),
    ],
)
def test_what_is_wrong_is_named(raw: bytes, match: str) -> None:
    refused(match, raw)


def test_inputs_must_agree_on_rows_and_come_once() -> None:
    codec = V2Codec(TaskType("t", inputs=(TensorSpec("a", "INT32"), TensorSpec("b", "INT32"))))
    a = {"name": "a", "shape": [2], "datatype": "INT32", "data": [1, 2]}
    b = {"name": "b", "shape": [1], "datatype": "INT32", "data": [1]}
    refused("'a' and 'b' have 2 and 1 rows", json.dumps({"inputs": [a, b]}).encode(), codec=codec)
    refused("'a' is given twice", json.dumps({"inputs": [a, a]}).encode(), codec=codec)
    refused("also takes the input b", json.dumps({"inputs": [a]}).encode(), codec=codec)


def test_an_optional_input_may_be_left_out_and_a_free_dimension_is_in_the_key() -> None:
    codec = V2Codec(
        TaskType("t", inputs=(TensorSpec("a", "INT32", (-1,)), TensorSpec("b", "INT32", optional=True)))
    )
    a = {"name": "a", "shape": [1, 2], "datatype": "INT32", "data": [1, 2]}
    assert codec.decode(json.dumps({"inputs": [a]}).encode()).ref.shape == "a:INT32:2"
    b = {"name": "b", "shape": [1], "datatype": "INT32", "data": [1]}
    assert codec.decode(json.dumps({"inputs": [b, a]}).encode()).ref.shape == "a:INT32:2;b:INT32:"


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("INT8", 128), ("UINT8", -1), ("UINT64", -1), ("UINT64", 2**64), ("INT64", 2**63), ("INT32", 1.5),
        ("INT32", True), ("BOOL", 1), ("BYTES", 1), ("FP64", "1"), ("UINT16", None),
    ],
)  # fmt: skip
def test_no_element_is_bent_to_its_datatype(dtype: str, value: Any) -> None:
    codec = V2Codec(task(dtype, ()))
    refused("not all|out of range", body([value], (1,), "x", dtype), codec=codec)
    refused("not all|out of range", body([[value]], (1, 1), "x", dtype), codec=V2Codec(task(dtype, (1,))))


@pytest.mark.parametrize("dtype", ["FP16", "BF16"])
def test_half_floats_travel_only_as_binary(dtype: str) -> None:
    codec = V2Codec(task(dtype))
    refused("travels only as binary", body([1, 2, 3], (1, 3), "x", dtype), codec=codec)
    mixed = V2Codec(TaskType("t", inputs=(TensorSpec("x", "INT32"),), outputs=(TensorSpec("y", dtype),)))
    plain = body([1], (1,), "x", "INT32")
    refused(f"output 'y' is {dtype}, which travels only as binary", plain, codec=mixed)
    named = body([1], (1,), "x", "INT32", outputs=[{"name": "y"}])
    refused("only as binary", named, codec=mixed)
    wanted = body([1], (1,), "x", "INT32", outputs=[{"name": "y", "parameters": {"binary_data": True}}])
    call = mixed.decode(wanted)
    array = np.array([3], np.float16 if dtype == "FP16" else np.uint16)
    answer, length = mixed.encode(call, Tensors({"y": array}), "m", "1")
    assert json.loads(answer[:length])["outputs"][0]["datatype"] == dtype


@pytest.mark.parametrize(
    ("size", "header", "match"),
    [
        (15, None, "binary_data_size is 15, 0 bytes are left"),
        (15, "right", "needs 16 bytes, binary_data_size is 15"),
        (17, "right", "binary_data_size is 17, 16 bytes are left"),
        (-1, "right", "binary_data_size is a number of bytes"),
        (True, "right", "binary_data_size is a number of bytes"),
        (16, "over", "Inference-Header-Content-Length is 9999"),
        (16, "long", "not a V2 inference request"),
    ],
)
def test_sizes_of_blobs_must_be_right(size: Any, header: str | None, match: str) -> None:
    tensor = {"name": "image", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [tensor]}).encode()
    length = {"right": len(head), "over": 9999, "long": len(head) + 1, None: None}[header]
    refused(match, head + (b"\0" * 16 if header else b""), length)


def test_bytes_behind_the_last_blob_are_refused() -> None:
    tensor = {"name": "image", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}
    head = json.dumps({"inputs": [tensor]}).encode()
    refused("4 bytes behind the last input", head + b"\0" * 20, len(head))


@pytest.mark.parametrize(
    "blob", [b"", b"\x01", b"\x05\0\0\0ab", b"\x01\0\0\0a\x01\0\0\0b", b"\xff\xff\xff\xff" + b"a" * 8]
)
def test_strings_cut_short_are_refused(blob: bytes) -> None:
    tensor = {"name": "x", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(blob)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    refused("BYTES", head + blob, len(head), V2Codec(task("BYTES", ())))


def test_a_shape_of_many_strings_costs_no_memory() -> None:
    tensor = {"name": "x", "shape": [10**15], "datatype": "BYTES", "parameters": {"binary_data_size": 4}}
    head = json.dumps({"inputs": [tensor]}).encode()
    refused("needs at least", head + b"\0" * 4, len(head), V2Codec(task("BYTES", ())))


def test_outputs_come_as_they_were_asked_for() -> None:
    wishes = [
        {"name": "scores", "parameters": {"binary_data": True}},
        {"name": "label"},
    ]
    call = CODEC.decode(body([1, 2, 3, 4], outputs=wishes))
    assert call.tensors.outputs == ("scores", "label")
    result = Tensors({"label": np.array([2]), "scores": np.array([[0.1, 0.2, 0.7]], np.float32)})
    answer, length = CODEC.encode(call, result, "m", "1")
    outputs = json.loads(answer[:length])["outputs"]
    assert [o["name"] for o in outputs] == ["scores", "label"]
    assert outputs[1]["data"] == [2]
    assert answer[length:] == np.array([0.1, 0.2, 0.7], "<f4").tobytes()


def test_an_output_overrides_the_binary_default() -> None:
    wishes = [{"name": "label", "parameters": {"binary_data": False}}]
    call = CODEC.decode(body([1, 2, 3, 4], outputs=wishes, parameters={"binary_data_output": True}))
    answer, length = CODEC.encode(call, Tensors({"label": np.array([2])}), "m", "1")
    assert length is None
    assert json.loads(answer)["outputs"][0]["data"] == [2]


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (1, [["0.7:2:two"], ["0.5:0:zero"]]),
        (2, [["0.7:2:two", "0.2:1:one"], ["0.5:0:zero", "0.5:1:one"]]),
        (9, [["0.7:2:two", "0.2:1:one", "0.1:0:zero"], ["0.5:0:zero", "0.5:1:one", "nan:2:two"]]),
    ],
)
def test_classes_are_best_first_with_ties_by_index(classes: int, expected: list[list[str]]) -> None:
    wishes = [{"name": "scores", "parameters": {"classification": classes}}]
    call = CODEC.decode(body([1, 2, 3, 4], outputs=wishes))
    scores = np.array([[0.1, 0.2, 0.7], [0.5, 0.5, np.nan]], np.float32)
    answer, _ = CODEC.encode(call, Tensors({"scores": scores}), "m", "1")
    output = json.loads(answer)["outputs"][0]
    assert output["datatype"] == "BYTES"
    assert output["shape"] == [2, len(expected[0])]
    assert output["data"] == [text for row in expected for text in row]


def test_classes_without_labels_are_value_and_index() -> None:
    codec = V2Codec(task("INT32"))
    wishes = [{"name": "y", "parameters": {"classification": 1, "binary_data": True}}]
    call = codec.decode(body([1, 2, 3], (1, 3), "x", "INT32", outputs=wishes))
    answer, length = codec.encode(call, Tensors({"y": np.array([[1, 9, 3]], np.int32)}), "m", "1")
    assert answer[length:] == b"\x03\0\0\x009:1"


def test_bytes_that_are_not_utf8_can_only_be_sent_as_binary() -> None:
    codec = V2Codec(task("BYTES", ()))
    call = codec.decode(body(["a"], (1,), "x", "BYTES"))
    array = np.array([b"\xff"], object)
    with pytest.raises(InvalidRequest, match="ask for it with 'binary_data': true"):
        codec.encode(call, Tensors({"y": array}), "m", "1")


def test_nulls_and_unknown_fields_are_taken_as_left_out() -> None:
    raw = json.loads(body([1, 2, 3, 4]))
    raw |= {"id": None, "parameters": None, "outputs": None, "future": 1}
    raw["inputs"][0] |= {"parameters": None, "future": [1]}
    assert CODEC.decode(json.dumps(raw).encode()).tensors.rows == 1
