"""OpenAI's transcriptions: a form checked, and a transcript written as JSON, text or subtitles.

Rules this module keeps:

1. A field nobody here knows is a parameter for the model to read, as text; one that may stand several times
   (its name ends with ``[]``) is a list.
2. Subtitles are made of the model's own segments; where it gave none, they are refused. Verbose JSON holds
   what is known: many clients ask for it only to learn the duration.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from semaforo.entities import Priority
from semaforo.wire.multipart import Part
from semaforo.wire.openai_fields import InvalidField, named_model, shown, tier

FORMATS = ("json", "text", "verbose_json", "srt", "vtt")
SUBTITLES = ("srt", "vtt")


class AudioCall(msgspec.Struct, frozen=True):
    """A form that was checked.

    Attributes:
        model: Model, alias or task type as asked for, or ``auto``.
        audio: The file's bytes.
        form: How the transcript is wanted.
        parameters: Fields for the model to read, among them ``filename``, ``content_type`` and, where it is
            not plain JSON, ``response_format``.
        priority: Class by ``service_tier``; None where it says nothing.
        timed: The field that asks for segments or words, "" = none does.
    """

    model: str
    audio: bytes
    form: str
    parameters: dict[str, Any]
    priority: Priority | None = None
    timed: str = ""


def parse_audio(parts: Sequence[Part]) -> AudioCall:
    """Check the parts of a form.

    Raises:
        InvalidField: What is wrong with which field.
    """
    file = next((part for part in parts if part.name == "file"), None)
    if file is None or file.filename is None:
        raise InvalidField("file", "give the audio as a file")
    if not file.data:
        raise InvalidField("file", "is empty")
    fields: dict[str, Any] = {}
    for part in parts:
        if part is file:
            continue
        if part.name.endswith("[]"):
            fields.setdefault(part.name, []).append(part.text)
        else:
            fields[part.name] = part.text
    model = named_model(fields)
    form = fields.get("response_format") or "json"
    if form not in FORMATS:
        raise InvalidField("response_format", f"{shown(form)} is none of {', '.join(FORMATS)}")
    if fields.get("stream", "false").lower() not in ("false", "0", ""):
        raise InvalidField("stream", "transcripts come whole: leave it out")
    if "temperature" in fields:
        _number(fields["temperature"])
    priority = tier(fields)
    parameters = {
        k: v for k, v in fields.items() if k not in ("model", "stream", "service_tier", "response_format")
    }
    if form not in ("json", "text"):
        parameters["response_format"] = form
    parameters["filename"] = file.filename
    if file.content_type:
        parameters["content_type"] = file.content_type
    timed = "response_format" if form in SUBTITLES else ""
    if form == "verbose_json" and "timestamp_granularities[]" in fields:
        timed = "timestamp_granularities"
    return AudioCall(model, file.data, form, parameters, priority, timed)


def transcript(call: AudioCall, text: str, details: dict[str, Any]) -> tuple[str, bytes]:
    """Return the media type and body of an answer.

    Raises:
        InvalidField: The model gave no segments, and the form is made of them.
    """
    if call.form == "text":
        return "text/plain; charset=utf-8", text.encode() + b"\n"
    if call.form == "json":
        usage = {"usage": details["usage"]} if isinstance(details.get("usage"), dict) else {}
        return "application/json", msgspec.json.encode({"text": text, **usage})
    if call.form == "verbose_json":
        known = {
            "task": "transcribe",
            "language": call.parameters.get("language", ""),
            **_duration(call.audio),
        }
        return "application/json", msgspec.json.encode({**known, **details, "text": text})
    segments = details.get("segments")
    if not isinstance(segments, list):
        raise InvalidField("response_format", f"the model gave no segments, of which {call.form} is made")
    write = _srt if call.form == "srt" else _vtt
    return ("application/x-subrip" if call.form == "srt" else "text/vtt; charset=utf-8"), write(
        segments
    ).encode()


def _duration(audio: bytes) -> dict[str, float]:
    """Return the seconds of a WAV file; of other kinds only a decoder knows them."""
    try:
        with wave.open(io.BytesIO(audio)) as file:
            return {"duration": file.getnframes() / file.getframerate()}
    except Exception:
        # The reader raises whatever it trips over in a file that is another kind, or broken.
        return {}


def _srt(segments: list[Any]) -> str:
    cues = [f"{number}\n{_cue(segment, _comma)}\n" for number, segment in enumerate(segments, start=1)]
    return "\n".join(cues)


def _vtt(segments: list[Any]) -> str:
    return "\n".join(["WEBVTT\n", *(_cue(segment, _point) + "\n" for segment in segments)])


def _cue(segment: Any, clock: Callable[[float], str]) -> str:
    try:
        begin, end, text = float(segment["start"]), float(segment["end"]), str(segment["text"]).strip()
    except (TypeError, KeyError, ValueError):
        raise InvalidField(
            "response_format", f"the model gave a segment without times: {shown(segment)}"
        ) from None
    # An empty line would end the cue, and an arrow would begin another.
    lines = [line for line in text.replace("-->", "→").splitlines() if line.strip()]
    return f"{clock(begin)} --> {clock(end)}\n" + "\n".join(lines or [""])


def _point(seconds: float) -> str:
    whole = round(max(0.0, seconds) * 1000)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}.{whole % 1000:03}"


def _comma(seconds: float) -> str:
    return _point(seconds).replace(".", ",")


def _number(text: str) -> None:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise InvalidField("temperature", f"must be a number from 0 to 1, not {shown(text)}")
