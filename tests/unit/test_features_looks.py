"""What extractors say of pictures, sounds and tables: it moves as it should, and nothing breaks it."""

from __future__ import annotations

import math
import wave
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from semaforo.entities import Look, TaskType, TensorSpec
from semaforo.features.audio import audio_numbers
from semaforo.features.image import image_numbers
from semaforo.features.picture_file import size_of
from semaforo.features.plan import BUILT_IN, Sources, named, plan_of
from semaforo.features.table import table_numbers
from semaforo.features.tensor import array_numbers

LOOK = Look()
RATE = 16_000


def scene(side: int = 96, colours: int = 3, seed: int = 0) -> np.ndarray:
    """Return a picture ``(1, side, side, colours)`` of blocks with edges, 0…255."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(40, 215, (8, 8, colours))
    return np.repeat(np.repeat(blocks, side // 8, 0), side // 8, 1)[None].astype(np.uint8)


def blurred(picture: np.ndarray, by: int) -> np.ndarray:
    found = picture.astype(float)
    for axis in (1, 2):
        found = np.mean([np.roll(found, shift, axis) for shift in range(-by, by + 1)], axis=0)
    return found.astype(np.uint8)


def noisy(picture: np.ndarray, spread: float) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0.0, spread, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def tone(seconds: float = 0.5, level: float = 0.5, noise: float = 0.0, hertz: float = 440.0) -> np.ndarray:
    at = np.arange(int(seconds * RATE)) / RATE
    wave_ = level * np.sin(2 * math.pi * hertz * at)
    return (wave_ + np.random.default_rng(2).normal(0.0, noise, at.shape) if noise else wave_)[None]


# --- pictures ---------------------------------------------------------------------------------------------


def test_blur_lowers_sharpness_and_noise_raises_noise() -> None:
    clean = image_numbers(scene(), LOOK)
    soft = [image_numbers(blurred(scene(), by), LOOK) for by in (1, 3)]
    rough = [image_numbers(noisy(scene(), spread), LOOK) for spread in (5.0, 15.0)]
    for name in ("sharpness", "laplacian"):
        assert clean[name] > soft[0][name] > soft[1][name], name
    assert clean["noise"] < rough[0]["noise"] < rough[1]["noise"]
    assert rough[1]["entropy"] > clean["entropy"]


def test_noise_is_measured_in_its_own_unit() -> None:
    flat = np.full((1, 128, 128), 128, np.uint8)
    found = image_numbers(noisy(flat, 10.0), LOOK)
    assert found["noise"] == pytest.approx(10.0 / 255.0, rel=0.1)
    assert found["contrast"] == pytest.approx(10.0 / 255.0, rel=0.1)


def test_light_contrast_and_colour() -> None:
    dark, light = (image_numbers((scene() * by).astype(np.uint8), LOOK) for by in (0.3, 1.0))
    assert dark["brightness"] < light["brightness"]
    assert dark["contrast"] < light["contrast"]
    # Ratios do not care how light it is.
    assert dark["sharpness"] == pytest.approx(light["sharpness"], rel=0.1)
    grey = np.repeat(scene(colours=1), 3, axis=-1)
    assert image_numbers(grey, LOOK)["saturation"] == 0.0
    assert light["saturation"] > 0.1
    white = np.full((1, 32, 32, 3), 255, np.uint8)
    assert image_numbers(white, LOOK)["clipped"] == 1.0
    assert image_numbers(white, LOOK)["entropy"] == 0.0


def test_layouts_of_a_picture_agree() -> None:
    last = scene()
    first = np.moveaxis(last, -1, 1)
    assert image_numbers(first, LOOK) == pytest.approx(image_numbers(last, LOOK))
    floats = image_numbers(last / 255.0, LOOK)
    for name in ("brightness", "contrast", "noise", "sharpness", "gradient"):
        assert floats[name] == pytest.approx(image_numbers(last, LOOK)[name], abs=1e-6), name
    square = np.arange(64.0).reshape(1, 8, 8)
    assert image_numbers(square.reshape(1, 64), LOOK) == image_numbers(square, LOOK)
    wide = image_numbers(np.zeros((1, 20, 80, 3), np.uint8), LOOK)
    assert wide["aspect"] == pytest.approx(math.log(4.0))
    assert image_numbers(np.zeros((1, 65)), LOOK) == {}


def test_a_large_picture_is_looked_at_in_tiles() -> None:
    large = np.kron(scene(96, 1)[0, ..., 0], np.ones((12, 12), np.uint8))[None]
    assert large.shape == (1, 1152, 1152)
    found = image_numbers(large, LOOK)
    assert found["pixels"] == pytest.approx(math.log1p(1152**2))
    assert found["brightness"] == pytest.approx(large.mean() / 255.0, abs=0.1)
    assert image_numbers(noisy(large, 10.0), LOOK)["noise"] == pytest.approx(10.0 / 255.0, rel=0.3)


def test_several_rows_have_the_mean() -> None:
    one, other = scene(seed=1), noisy(scene(seed=2), 20.0)
    both = image_numbers(np.concatenate([one, other]), LOOK)
    for name, value in both.items():
        assert value == pytest.approx(np.mean([image_numbers(p, LOOK)[name] for p in (one, other)])), name


def test_the_head_of_a_file_says_its_size() -> None:
    png = (
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"
        + (640).to_bytes(4)
        + (480).to_bytes(4)
        + b"\x08\x02\x00\x00\x00"
    )
    frame = b"\xff\xc0\x00\x11\x08" + (480).to_bytes(2) + (640).to_bytes(2) + b"\x03"
    jpeg = b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(10) + frame
    gif = b"GIF89a" + (640).to_bytes(2, "little") + (480).to_bytes(2, "little")
    assert {size_of(data) for data in (png, jpeg, gif)} == {(640, 480)}
    found = image_numbers(np.array([png], object), LOOK)
    assert found["pixels"] == pytest.approx(math.log1p(640 * 480))
    assert found["density"] == pytest.approx(len(png) / (640 * 480))
    for data in (
        b"",
        png[:20],
        jpeg[:12],
        b"\xff\xd8" + b"\xff" * 500,
        b"\xff\xd8\xff\xe0\x00\x00" * 9,
        b"hello",
    ):
        assert size_of(data) == (0, 0)
        assert "pixels" not in image_numbers(np.array([data], object), LOOK)


# --- sounds -----------------------------------------------------------------------------------------------


def test_noise_lowers_the_ratio_and_flattens_the_spectrum() -> None:
    found = [audio_numbers(tone(noise=noise), LOOK) for noise in (0.001, 0.05, 0.5)]
    assert found[0]["snr"] > found[1]["snr"] > found[2]["snr"]
    assert found[0]["flatness"] < found[1]["flatness"] < found[2]["flatness"]
    # A sine at half of full scale against noise of 0.05: 10 log10(0.125 / 0.0025) = 17 dB.
    assert found[1]["snr"] == pytest.approx(17.0, abs=2.0)


def test_level_length_and_clipping() -> None:
    found = audio_numbers(tone(), Look(rate=RATE))
    assert found["duration"] == pytest.approx(0.5)
    assert "duration" not in audio_numbers(tone(), LOOK)
    assert found["level"] == pytest.approx(20 * math.log10(0.5 / math.sqrt(2)), abs=0.2)
    assert found["peak"] == pytest.approx(20 * math.log10(0.5), abs=0.1)
    assert found["crossings"] == pytest.approx(2 * 440 / RATE, rel=0.1)
    assert found["centroid"] == pytest.approx(440 / (RATE / 2), abs=0.01)
    loud = audio_numbers(np.clip(tone(level=3.0), -1.0, 1.0), LOOK)
    assert loud["clipping"] > 0.5 > found["clipping"] == 0.0
    high = audio_numbers(tone(hertz=4000.0), LOOK)
    assert high["centroid"] > found["centroid"]
    assert high["rolloff"] > found["rolloff"]


def test_pauses_show_the_floor() -> None:
    speech = tone(1.0, noise=0.001)
    speech[:, ::2] += 0.0
    gaps = speech * np.repeat([1.0, 0.0], RATE // 2)[None]
    assert audio_numbers(gaps, LOOK)["floor"] < audio_numbers(speech, LOOK)["floor"] - 40.0
    assert audio_numbers(gaps, LOOK)["swing"] > audio_numbers(speech, LOOK)["swing"] + 40.0


def test_types_and_channels_of_a_sound_agree() -> None:
    floats = audio_numbers(tone(), LOOK)
    whole = audio_numbers((tone() * 32768).astype(np.int16), LOOK)
    assert whole == pytest.approx(floats, abs=0.6)
    stereo = np.stack([tone(), tone()], axis=-1)
    assert audio_numbers(stereo, LOOK) == pytest.approx(floats)
    assert audio_numbers(np.moveaxis(stereo, -1, 1), LOOK) == pytest.approx(floats)
    silence = audio_numbers(np.zeros((1, 4000), np.int16), LOOK)
    assert silence["level"] == silence["floor"] == -120.0
    assert "snr" not in silence


@pytest.mark.parametrize("width", [1, 2, 4])
def test_a_wav_file_says_its_rate(width: int) -> None:
    samples = tone()[0]
    scaled = {1: samples * 127 + 128, 2: samples * 32767, 4: samples * (2**31 - 1)}[width]
    data = BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(RATE)
        file.writeframes(scaled.astype({1: "u1", 2: "<i2", 4: "<i4"}[width]).tobytes())
    found = audio_numbers(np.array([data.getvalue()], object), LOOK)
    assert found["duration"] == pytest.approx(0.5)
    assert found["level"] == pytest.approx(-9.0, abs=0.3)
    for broken in (data.getvalue()[:30], b"RIFF", b"ID3 no wave", b""):
        assert audio_numbers(np.array([broken], object), LOOK) == {"bytes": math.log1p(len(broken))}


# --- tables -----------------------------------------------------------------------------------------------


def test_columns_of_a_table_are_features_and_gaps_are_left_out() -> None:
    found = table_numbers(np.array([[1.0, math.nan, 3.0]]), LOOK)
    assert found == {"c0": 1.0, "c2": 3.0, "missing_columns": pytest.approx(1 / 3)}
    rows = table_numbers(np.array([[1.0, math.nan], [3.0, 5.0]]), LOOK)
    assert rows == {"c0": 2.0, "c1": 5.0, "missing_columns": 0.5}
    assert table_numbers(np.array([3, 5]), LOOK) == {"c0": 4.0, "missing_columns": 0.0}
    assert table_numbers(np.zeros((1, 65)), LOOK) == {}


# --- nothing breaks them ----------------------------------------------------------------------------------

_DTYPES = st.sampled_from(["uint8", "int16", "int64", "uint64", "bool", "float16", "float32", "float64"])


@settings(max_examples=150, deadline=None)
@given(
    arrays_of.arrays(_DTYPES, arrays_of.array_shapes(min_dims=1, max_dims=4, max_side=6), elements=None),
    st.sampled_from(sorted(BUILT_IN)),
)
def test_whatever_comes_is_finite(array: np.ndarray, kind: str) -> None:
    found = BUILT_IN[kind](array, Look(rate=8000.0))
    assert all(isinstance(v, float) and math.isfinite(v) for v in found.values())
    if array.size:
        assert all(map(math.isfinite, array_numbers("x", array).values()))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((1, 0)), np.zeros((0, 8, 8)), np.full((1, 9, 9), math.nan), np.full((1, 9, 9), math.inf),
        np.full((1, 16), 1e308), np.array([[-1e308, 1e308]]), np.zeros((1, 1, 1, 1)), np.ones((1, 1)),
        np.full((1, 600), math.nan), np.zeros((2, 3, 4, 5, 6)), np.array([None, 3, "x"], object),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", sorted(BUILT_IN))
def test_edges(array: np.ndarray, kind: str) -> None:
    found = BUILT_IN[kind](array, LOOK)
    assert all(math.isfinite(v) for v in found.values())


# --- which of them looks ----------------------------------------------------------------------------------


def kinds(*inputs: TensorSpec, **said: Any) -> list[tuple[str, str]]:
    return [(part.input, part.kind) for part in plan_of(TaskType("t", inputs=inputs, **said)).parts]


@pytest.mark.parametrize(
    ("dtype", "shape", "kind"),
    [
        ("UINT8", (-1, -1, 3), "image"), ("UINT8", (224, 224, 3), "image"), ("UINT8", (3, 224, 224), "image"),
        ("UINT8", (28, 28), "image"), ("UINT8", (28, 28, 1), "image"), ("UINT8", (28, 28, 2), ""),
        ("UINT8", (4, 4), ""), ("UINT8", (784,), ""), ("FP32", (224, 224, 3), ""), ("INT64", (-1,), ""),
    ],
)  # fmt: skip
def test_bytes_in_the_shape_of_pictures_are_pictures(dtype: str, shape: tuple[int, ...], kind: str) -> None:
    wanted = [("x", "tensor"), *([("x", kind)] if kind else [])]
    assert kinds(TensorSpec("x", dtype, shape)) == wanted


def test_what_the_fleet_file_says_goes_first() -> None:
    picture, words = TensorSpec("x", "UINT8", (-1, -1, 3)), TensorSpec("w", "BYTES")
    assert kinds(picture, looks={"x": Look("none")}) == []
    assert kinds(picture, looks={"x": Look("tensor")}) == [("x", "tensor")]
    assert kinds(TensorSpec("x", "INT16", (-1,)), looks={"x": Look(rate=8000.0)}) == [
        ("x", "tensor"),
        ("x", "audio"),
    ]
    assert plan_of(TaskType("t", inputs=(words,))).texts == ("w",)
    assert plan_of(TaskType("t", inputs=(words,), looks={"w": Look("none")})).texts == ()
    sound = plan_of(TaskType("t", interface="transcription", inputs=(TensorSpec("audio", "BYTES"),)))
    assert [part.kind for part in sound.parts] == ["audio"]
    assert sound.texts == ()
    mine = Sources({"mine": lambda array, look: {"n": 1.0}})
    assert [
        p.kind for p in plan_of(TaskType("t", inputs=(picture,), looks={"x": Look("mine")}), mine).parts
    ] == [
        "tensor",
        "mine",
    ]


def test_what_an_extractor_gives_is_named_and_checked() -> None:
    given_ = {"a": 1, "b": np.float32(2.5), "c": True, "d": "three", "e": None, "f": [1.0]}
    found = named("x", given_)
    assert (found["x.a"], found["x.b"], found["x.c"]) == (1.0, 2.5, 1.0)
    assert all(math.isnan(found[f"x.{name}"]) for name in "def")
    for wrong in ([1.0], None, 3.0, dict.fromkeys(map(str, range(257)), 1.0)):
        with pytest.raises(TypeError, match="it gave"):
            named("x", wrong)
