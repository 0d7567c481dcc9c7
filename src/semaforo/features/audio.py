"""What a sound is like: how long and loud it is, how noisy, and where its power lies.

Whole numbers are scaled by the range of their type, so that full scale is 1; other numbers are taken to be on that
scale already. Of a long sound `MOST_FRAMES` frames spread evenly over it are looked at, and of many sounds in one
request `MOST_ROWS`; what is said is the mean.
"""

from __future__ import annotations

import wave
from io import BytesIO
from math import log1p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semaforo.entities.task import Look
from semaforo.features.numbers import finite, full_scale

Floats = NDArray[np.float64]

MOST_ROWS = 4
MOST_FRAMES = 64
FRAME = 512
"""Samples of a frame."""
SILENCE = -120.0
"""Decibels that stand for less than can be told from nothing."""
_MOST_CHANNELS = 8
_FULL = 0.99
_MOST_SNR = 60.0
_WINDOW = {FRAME: np.hanning(FRAME)}


def audio_numbers(array: NDArray[Any], look: Look) -> dict[str, float]:
    """Return the features of sounds.

    Args:
        array: ``(rows, samples)``, with up to 8 channels last or first; or ``(rows,)`` of WAV files.
        look: Says how many samples make a second; a file says so itself.

    Returns:
        ``duration`` (seconds, where the rate is known), ``samples`` (log), ``level``, ``peak``, ``floor`` and
        ``swing`` (dB of full scale: root mean square, largest sample, tenth percentile of the frames, and from
        there to the ninetieth), ``crest`` (dB between peak and level), ``clipping`` (share of samples at full
        scale), ``crossings`` (of zero, for each sample), ``flatness`` (0…1: power in few tones, or evenly spread as
        in noise), ``centroid`` and ``rolloff`` (mean frequency, and that below which 85 % of the power lies;
        1 = half the rate), ``snr`` (dB of what stands out of the median of the spectrum, which noise fills, over
        that).
        Nothing where it is no sound.
    """
    if array.dtype == object:
        return _files(array)
    waves = _mono(array[:: max(1, len(array) // MOST_ROWS)][:MOST_ROWS])
    return {} if waves is None else _heard(*waves, look.rate)


def _files(array: NDArray[Any]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for data in array.ravel()[:MOST_ROWS].tolist():
        if not isinstance(data, bytes):
            continue
        for name, value in (_wav(data) | {"bytes": log1p(len(data))}).items():
            found.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}


def _wav(data: bytes) -> dict[str, float]:
    """Return the features of a WAV file of whole numbers; nothing for what is none."""
    if data[:4] != b"RIFF":
        return {}
    try:
        with wave.open(BytesIO(data)) as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            kind = {1: "u1", 2: "<i2", 4: "<i4"}.get(width)
            if kind is None or not rate:
                return finite({"duration": file.getnframes() / rate}) if rate else {}
            samples = np.frombuffer(file.readframes(file.getnframes()), np.uint8)
    except (wave.Error, EOFError, ValueError, OverflowError, MemoryError):
        return {}
    whole = len(samples) // (width * channels) * width * channels
    if not whole:
        return {}
    found = _mono(samples[:whole].view(kind).reshape(1, -1, channels))
    return {} if found is None else _heard(*found, float(rate))


def _mono(array: NDArray[Any]) -> tuple[Floats, int] | None:
    """Return ``(rows, frames, samples)`` at full scale 1, and the samples of a row; None where it is no sound."""
    if not array.size or array.ndim not in (2, 3):
        return None
    if array.ndim == 3:
        if array.shape[2] > _MOST_CHANNELS >= array.shape[1]:
            array = np.moveaxis(array, 1, 2)
        if array.shape[2] > _MOST_CHANNELS:
            return None
    scale, middle = full_scale(array.dtype)
    frames = _frames(array)
    if scale:
        half = (scale + 1.0) / 2.0
        floats = (frames.astype(np.float64) + middle - half) / half
    else:
        floats = np.nan_to_num(frames.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    return floats.mean(axis=-1) if array.ndim == 3 else floats, array.shape[1]


def _frames(array: NDArray[Any]) -> NDArray[Any]:
    """Return ``(rows, frames, samples, …)`` of ``(rows, samples, …)``, spread evenly."""
    samples = array.shape[1]
    if samples <= FRAME:
        return array[:, None]
    count = min(MOST_FRAMES, -(-samples // FRAME))
    starts = np.linspace(0, samples - FRAME, count).astype(np.int64)
    return array[:, starts[:, None] + np.arange(FRAME)]


def _heard(frames: Floats, samples: int, rate: float) -> dict[str, float]:
    with np.errstate(all="ignore"):
        numbers = {"samples": log1p(samples)} | _loudness(frames) | _spectrum(frames)
    if rate:
        numbers["duration"] = samples / rate
    return finite(numbers)


def _loudness(frames: Floats) -> dict[str, float]:
    rows = len(frames)
    size = np.abs(frames)
    power = (frames * frames).mean(axis=2)
    level, peak = _decibels(power.mean(axis=1)), _decibels(size.reshape(rows, -1).max(axis=1) ** 2)
    floor, top = np.quantile(_decibels(power), (0.1, 0.9), axis=1)
    above = frames >= 0.0
    return {
        "level": float(level.mean()),
        "peak": float(peak.mean()),
        "crest": float((peak - level).mean()),
        "floor": float(floor.mean()),
        "swing": float((top - floor).mean()),
        "clipping": float((size >= _FULL).mean()),
        "crossings": float((above[..., 1:] != above[..., :-1]).mean()) if frames.shape[2] > 1 else 0.0,
    }


def _spectrum(frames: Floats) -> dict[str, float]:
    """Return what the mean power spectrum of the frames says (Welch's); nothing of silence."""
    size = frames.shape[2]
    window = _WINDOW.get(size)
    if window is None:
        window = np.hanning(size)
    power = np.abs(np.fft.rfft((frames - frames.mean(axis=2, keepdims=True)) * window, axis=2)) ** 2
    power = power.mean(axis=1)[:, 1:]
    power = power[power.sum(axis=1) > 0.0]
    if not power.size or power.shape[1] < 4:
        return {}
    total, bins = power.sum(axis=1), power.shape[1]
    shares = power / total[:, None]
    places = np.arange(1, bins + 1) / bins
    noise = np.minimum(np.median(shares, axis=1) * bins, 1.0)
    # Never quite nothing, so that a pure tone has a figure too.
    over = np.maximum(1.0 - noise, 1e-6) / np.maximum(noise, 1e-6)
    flat = np.exp(np.log(np.maximum(shares, 1e-20)).mean(axis=1)) * bins
    rolloff = (np.cumsum(shares, axis=1) < 0.85).sum(axis=1) + 1
    return {
        "flatness": float(flat.mean()),
        "centroid": float((shares @ places).mean()),
        "rolloff": float(rolloff.mean()) / bins,
        "snr": float(np.clip(10.0 * np.log10(over), -_MOST_SNR, _MOST_SNR).mean()),
    }


def _decibels(power: Floats) -> Floats:
    found: Floats = 10.0 * np.log10(np.maximum(power, 10.0 ** (SILENCE / 10.0)))
    return found
