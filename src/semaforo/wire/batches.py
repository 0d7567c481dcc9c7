"""OpenAI's batch files: lines of requests in, lines of results out.

Rules this module keeps:

1. Every line that is wrong is named with its number; one that is right is kept as its bytes are.
2. What only the model can judge is not judged here: it becomes the result of its line.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

MOST_ERRORS = 100
"""Lines that are named before a file is given up."""

_MOST_NAME = 512


class Line(msgspec.Struct, frozen=True):
    """One request of a batch.

    Attributes:
        number: Line of the input, from 1.
        custom_id: The caller's name for it, unique in the file.
        body: JSON as it was sent.
        model: What the body asks for; "" where it does not say.
    """

    number: int
    custom_id: str
    body: bytes
    model: str


class LineError(msgspec.Struct, frozen=True):
    """What is wrong with a line of the input.

    Attributes:
        code: A stable word for programs.
        message: What is wrong and what to do.
        line: Line of the input, from 1; None = the file as a whole.
        param: Field that is wrong, or None.
    """

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class _Line(msgspec.Struct):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Body(msgspec.Struct):
    model: str = ""
    stream: bool | None = None


_line = msgspec.json.Decoder(_Line)
_body = msgspec.json.Decoder(_Body)


def read_lines(content: bytes, endpoint: str, most: int) -> tuple[list[Line], list[LineError]]:
    """Read the input of a batch.

    Args:
        content: JSON Lines; empty lines count and are skipped.
        endpoint: The only url that its lines may name.
        most: Requests that it may hold.

    Returns:
        Its requests, and what is wrong with it: where anything is, nothing of it should be run.
    """
    found: list[Line] = []
    wrong: list[LineError] = []
    seen: dict[str, int] = {}
    for number, text in enumerate(_lines(content), 1):
        if not text.strip():
            continue
        read = _read(text, number, endpoint)
        if isinstance(read, Line):
            first = seen.setdefault(read.custom_id, number)
            if first != number:
                message = f"line {number}: custom_id '{read.custom_id}' stands on line {first} already"
                read = LineError("duplicate_custom_id", message, number, "custom_id")
        if isinstance(read, Line):
            found.append(read)
        else:
            wrong.append(read)
            if len(wrong) >= MOST_ERRORS:
                message = f"{MOST_ERRORS} lines are wrong up to line {number}; the rest was not read"
                wrong.append(LineError("too_many_errors", message))
                break
        if len(found) > most:
            message = f"the file has more than {most} requests, which is what may be queued here"
            wrong.append(LineError("too_many_requests", message))
            break
    if not found and not wrong:
        wrong.append(LineError("empty_file", "the file holds no request: give one JSON object on each line"))
    return found, wrong


def result_line(
    item_id: str,
    custom_id: str,
    response: tuple[int, str, bytes] | None,
    error: tuple[str, str] | None,
) -> bytes:
    """Return one line of an output or error file.

    Args:
        item_id: Id of the request.
        custom_id: The caller's name for it.
        response: Status, request id and JSON body, where it was run.
        error: Code and message, where it was not.
    """
    value: dict[str, object] = {"id": item_id, "custom_id": custom_id, "response": None, "error": None}
    if response is not None:
        status, request_id, body = response
        try:
            msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            error = (
                "not_json",
                "the answer is not JSON, as lines of a file must be: ask for it without binary outputs",
            )
        else:
            value["response"] = {
                "status_code": status,
                "request_id": request_id,
                "body": msgspec.Raw(body),
            }
    if value["response"] is None and error is not None:
        value["error"] = {"code": error[0], "message": error[1]}
    # A line of a file holds no line break, however the body was written.
    return msgspec.json.format(msgspec.json.encode(value), indent=-1) + b"\n"


def _lines(content: bytes) -> Iterator[bytes]:
    start = 3 if content.startswith(b"\xef\xbb\xbf") else 0
    while start < len(content):
        end = content.find(b"\n", start)
        end = len(content) if end < 0 else end
        yield content[start:end]
        start = end + 1


def _read(text: bytes, number: int, endpoint: str) -> Line | LineError:
    try:
        line = _line.decode(text)
    except msgspec.ValidationError as error:
        message = f"line {number}: {error}: it takes custom_id, method, url and body"
        return LineError("invalid_line", message, number)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return LineError("invalid_json_line", f"line {number} is not valid JSON: {error}", number)
    if not 0 < len(line.custom_id) <= _MOST_NAME:
        message = f"line {number}: custom_id takes 1 to {_MOST_NAME} characters"
        return LineError("invalid_custom_id", message, number, "custom_id")
    if line.method != "POST":
        message = f"line {number}: method is '{line.method[:20]}'; it takes POST"
        return LineError("invalid_method", message, number, "method")
    if line.url != endpoint:
        message = f"line {number}: url is '{line.url[:100]}' and the batch's endpoint is '{endpoint}'"
        return LineError("mismatched_endpoint", message, number, "url")
    body = bytes(line.body)
    try:
        read = _body.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return LineError("invalid_body", f"line {number}: body: {error}", number, "body")
    if read.stream:
        message = f"line {number}: a batch has no streams: leave body.stream out"
        return LineError("invalid_body", message, number, "body.stream")
    if not read.model and endpoint.startswith("/v1/"):
        message = f"line {number}: body.model is missing: name a model, an alias or a task"
        return LineError("missing_required_parameter", message, number, "body.model")
    return Line(number, line.custom_id, body, read.model)
