"""Frames: what goes in comes out, however the bytes are cut; what is not a frame is refused."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semaforo.entities import BatchProfile, ReplicaSpec, Signature, StreamProfile, TensorSpec
from semaforo.errors import InvalidRequest, ModelFailed, ProtocolError, Refused
from semaforo.wire import frames as f
from semaforo.wire import messages as m
from semaforo.wire.block import Block, expand, group, join, members_of
from semaforo.wire.payload import ChatChunk, Tensors

DTYPES = ["bool", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]
PLAIN = [
    m.Hello("0.1.0", "3.11.7", 12),
    m.Load(ReplicaSpec("r-1", "m/1/x", "onnx", "a.onnx", options={"threads": 2}, inputs=({"name": "x"},))),
    m.Loaded(BatchProfile(1e-3, 1e-4, curve=((1, 0.1),)), Signature((TensorSpec("x", shape=(-1, 3)),)), 5, 1),
    m.Loaded(StreamProfile(), None, 0, 4),
    m.LoadFailed("load_failed", "no such file"),
    m.RunChat(3, {"messages": [{"role": "user", "content": "né"}], "n": None, "t": 0.5}),
    m.Failed(4, "upstream", "gone", 1.5),
    m.Busy(5, 0.25),
    m.Chunk(6, ChatChunk(delta={"content": "x"}, finish_reason="stop", usage={"prompt_tokens": 1}, tokens=0)),
    m.StreamDone(7, 0.5, 3, 9),
    m.Limits({"requests_left": 3, "reset_s": 0.5}),
    m.Cancel(8),
    m.Ping(9),
    m.Pong(9, 3, 2, 0.5),
    m.Stop(),
]


def read(data: bytes, sizes: list[int] | None = None, reader: f.FrameReader | None = None) -> list[m.Message]:
    reader = reader or f.FrameReader()
    messages: list[m.Message] = []
    sizes = list(sizes or [])
    while data:
        room = reader.buffer()
        count = min(len(data), len(room), sizes.pop() if sizes else len(data))
        room[:count] = data[:count]
        data = data[count:]
        messages += reader.received(count)
    return messages


def run_bytes(batch: int, members: list[Tensors]) -> bytes:
    return b"".join(f.encode_run(batch, group(members)))


@pytest.mark.parametrize("message", PLAIN, ids=lambda message: type(message).__name__)
def test_plain_messages_come_back(message: m.Plain) -> None:
    assert read(f.encode(message)) == [message]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 0), (0, 4), (2, 3, 1)])
def test_every_dtype_and_shape(dtype: str, shape: tuple[int, ...]) -> None:
    array = (np.arange(int(np.prod(shape))).reshape(shape) % 2).astype(dtype)
    (message,) = read(run_bytes(1, [Tensors({"a": array, "b": array[:, None]})]))
    assert isinstance(message, m.Run)
    got = message.blocks[0].columns
    assert got["a"].dtype == array.dtype
    np.testing.assert_array_equal(got["a"], array)
    np.testing.assert_array_equal(got["b"], array[:, None])
    assert got["a"].flags.aligned
    assert got["a"].flags.writeable


def test_views_and_other_byte_orders_are_sent_by_value() -> None:
    grid = np.arange(12, dtype=">i4").reshape(3, 4)
    (message,) = read(run_bytes(1, [Tensors({"t": grid.T, "s": grid[::2, :].T})]))
    assert isinstance(message, m.Run)
    np.testing.assert_array_equal(message.blocks[0].columns["t"], grid.T)
    np.testing.assert_array_equal(message.blocks[0].columns["s"], grid[::2, :].T)


def test_texts_keep_their_kind() -> None:
    cells = np.array([["a", b"\xff\x00"], ["", "né"]], dtype=object)
    (message,) = read(run_bytes(1, [Tensors({"t": cells})]))
    assert isinstance(message, m.Run)
    assert message.blocks[0].columns["t"].tolist() == cells.tolist()


def test_members_arrive_concatenated_and_in_order() -> None:
    one = Tensors({"x": np.ones((1, 2), "f4")})
    two = Tensors({"x": np.full((3, 2), 2, "f4")})
    other = Tensors({"x": np.zeros((1, 4), "f4")}, {"k": 1}, ("y",))
    (message,) = read(run_bytes(9, [one, two, other, one]))
    assert isinstance(message, m.Run)
    assert message.batch == 9
    assert [b.counts for b in message.blocks] == [[1, 3], [1], [1]]
    assert message.blocks[0].columns["x"].tolist() == [[1, 1], [2, 2], [2, 2], [2, 2]]
    assert message.blocks[1].parameters == {"k": 1}
    assert message.blocks[1].outputs == ("y",)


def test_outcomes_keep_their_places() -> None:
    good = Block({"y": np.arange(3, dtype="i8")}, [1, 2])
    refused = Refused("full", retry_after_s=2.0)
    data = b"".join(f.encode_done(7, 0.25, [InvalidRequest("bad"), good, refused, ModelFailed("x")]))
    (message,) = read(data)
    assert isinstance(message, m.Done)
    assert (message.batch, message.service_s) == (7, 0.25)
    results = expand(message.outcomes)
    assert [type(r).__name__ for r in results] == [
        "InvalidRequest",
        "Tensors",
        "Tensors",
        "Refused",
        "ModelFailed",
    ]
    assert [r.arrays["y"].tolist() for r in results if isinstance(r, Tensors)] == [[0], [1, 2]]
    assert isinstance(results[3], Refused)
    assert results[3].retry_after_s == 2.0


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_cut_of_the_bytes_gives_the_same_messages(data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    members = [
        Tensors({"x": np.full((n, 7), i, "f4"), "t": np.array(["é"] * n, object)}) for i, n in enumerate(rows)
    ]
    stream = run_bytes(1, members) + f.encode(m.Ping(3)) + run_bytes(2, members[:1])
    sizes = data.draw(st.lists(st.integers(1, 200), max_size=40))
    first, ping, second = read(stream, sizes)
    assert isinstance(first, m.Run)
    assert isinstance(second, m.Run)
    assert ping == m.Ping(3)
    joined = join(members)
    np.testing.assert_array_equal(first.blocks[0].columns["x"], joined.columns["x"])
    assert [one.columns["x"].shape[0] for one in members_of(first.blocks[0])] == rows


@pytest.mark.parametrize("size", [262_000, 262_144, 262_200, 3_000_000])
def test_frames_around_and_over_the_size_of_the_buffer(size: int) -> None:
    array = np.random.default_rng(1).integers(0, 255, size=(1, size), dtype=np.uint8)
    stream = f.encode(m.Ping(1)) + run_bytes(1, [Tensors({"x": array})]) + f.encode(m.Ping(2))
    ping, run, last = read(stream, [100_000] * 50)
    assert (ping, last) == (m.Ping(1), m.Ping(2))
    assert isinstance(run, m.Run)
    np.testing.assert_array_equal(run.blocks[0].columns["x"], array)


def test_earlier_messages_survive_later_ones() -> None:
    reader = f.FrameReader()
    (first,) = read(run_bytes(1, [Tensors({"x": np.full((1, 50), 1.0)})]), reader=reader)
    read(run_bytes(2, [Tensors({"x": np.full((1, 50), 2.0)})]), reader=reader)
    assert isinstance(first, m.Run)
    assert (first.blocks[0].columns["x"] == 1.0).all()


def spoiled(**changes: Any) -> bytes:
    data = bytearray(run_bytes(1, [Tensors({"x": np.ones((1, 2))})]))
    fields = list(struct.unpack_from("<2sBBIQ", data))
    for place, value in changes.items():
        fields[int(place[1:])] = value
    struct.pack_into("<2sBBIQ", data, 0, *fields)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\n", "not a frame of Semaforo"),
        (spoiled(_1=1), "version 1, this side 2"),
        (spoiled(_2=99), "unknown kind 99"),
        (spoiled(_3=2**31), "over the limit"),
        (spoiled(_4=2**40), "over the limit"),
        (spoiled(_2=22), "cannot be read"),
        (struct.pack("<2sBBIQ", b"SF", 2, 1, 4, 0) + b"\xc1\xc1\xc1\xc1\0\0\0\0", "cannot be read"),
    ],
)
def test_what_is_not_a_frame_is_named(data: bytes, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        read(data)


def test_a_block_that_lies_about_its_size_is_refused() -> None:
    head = f._RunHead(1, [f._BlockHead([f._Column("x", "<f8", (1000,), 8000)], [1])])
    data = b"".join(f._frame(1, head, [], 0))
    with pytest.raises(ProtocolError, match="cannot be read"):
        read(data)
    lying = f._RunHead(1, [f._BlockHead([f._Column("x", "|O", (1,), 8)], [1])])
    with pytest.raises(ProtocolError, match="cannot be read"):
        read(b"".join(f._frame(1, lying, [b"\0" * 8], 8)))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 200))
def test_noise_raises_protocol_errors_only(noise: bytes, place: int) -> None:
    good = bytearray(run_bytes(1, [Tensors({"x": np.ones((2, 3)), "t": np.array(["a", "b"], object)})]))
    good[place : place + len(noise)] = noise
    try:
        read(bytes(good), reader=f.FrameReader(max_header=4096, max_buffers=4096))
    except ProtocolError:
        return


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([1 + 2j]), "complex128"),
        (np.array(["2020-01-01"], "M8[D]"), "datetime64"),
        (np.array([None], object), "NoneType"),
    ],
)
def test_what_cannot_be_sent_is_named(array: np.ndarray[Any, Any], words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        f.encode_run(1, [[Tensors({"x": array})]])


def test_a_member_with_uneven_columns_is_kept_apart_and_never_sent() -> None:
    even = Tensors({"x": np.ones((1, 2)), "y": np.ones((1, 2))})
    uneven = Tensors({"x": np.ones((2, 2)), "y": np.ones((1, 2))})
    assert [len(alike) for alike in group([even, uneven, even])] == [1, 1, 1]
    with pytest.raises(ProtocolError, match="'y' has not as many rows as the first one, 2"):
        f.encode_run(1, [[uneven]])


def test_columns_in_shared_memory_are_only_named() -> None:
    class Shared:
        def __init__(self) -> None:
            self.there: dict[int, Any] = {}

        def put(self, parts: Any, size: int) -> int:
            if size > 300_000:
                return -1
            self.there[len(self.there)] = np.concatenate(parts)
            return len(self.there) - 1

        def view(self, at: int, size: int) -> Any:
            return self.there[at].reshape(-1).view(np.uint8)[:size]

    shared = Shared()
    members = [
        Tensors({"small": np.ones((1, 2)), "large": np.full((1, 10_000), n), "huge": np.full((1, 30_000), n)})
        for n in (1.0, 2.0)
    ]
    data = b"".join(f.encode_run(3, group(members), shared, (4096, 65536)))
    # The large column is there, the huge one found no room and travels.
    assert 480_000 < len(data) < 490_000
    reader = f.FrameReader()
    reader.memory = shared
    (message,) = read(data, reader=reader)
    assert message.grant == (4096, 65536)
    (block,) = message.blocks
    assert np.array_equal(block.columns["large"], [[1.0] * 10_000, [2.0] * 10_000])
    assert np.array_equal(block.columns["huge"], [[1.0] * 30_000, [2.0] * 30_000])
    assert np.array_equal(block.columns["small"], np.ones((2, 2)))
    with pytest.raises(ProtocolError, match="not shared"):
        read(data)
