"""Open Inference Protocol V2 from the asking side: tensors → a request's body, and a reply's body → tensors.

Rules this module keeps:

1. A binary request has all its tensors as blobs, and asks for all outputs as blobs; a JSON one has none.
2. Whether a reply holds blobs is told by ``Inference-Header-Content-Length`` alone.
3. A reply that is no V2 is the server's fault (`ProtocolError`), never the asker's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from semaforo.entities import Contract, Priority, Privacy, TensorSpec
from semaforo.errors import InvalidRequest, ProtocolError, SemaforoError, error_from
from semaforo.wire.payload import Array
from semaforo.wire.v2_dtypes import check_datatype, datatype_of, from_blob, from_json, to_blob, to_json

HEADER_LENGTH = "inference-header-content-length"
ERROR_CODE = "semaforo-error"
"""Response header with the stable word of an error, which its status alone does not tell."""

_NO_DATA = msgspec.Raw(b"")


class _Sent(msgspec.Struct, omit_defaults=True):
    name: str
    shape: Sequence[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


class _Named(msgspec.Struct):
    name: str


class _Request(msgspec.Struct, omit_defaults=True):
    inputs: list[_Sent]
    parameters: dict[str, Any] = {}
    outputs: list[_Named] | None = None


class _Output(msgspec.Struct):
    name: str
    datatype: str
    shape: list[Annotated[int, msgspec.Meta(ge=0)]]
    data: msgspec.Raw = _NO_DATA
    parameters: dict[str, Any] | None = None


class _Reply(msgspec.Struct):
    outputs: list[_Output]
    model_name: str = ""
    model_version: str | None = None


class _Tensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] | None = None


class _Metadata(msgspec.Struct):
    name: str
    inputs: list[_Tensor] | None = None
    outputs: list[_Tensor] | None = None
    platform: str = ""
    versions: list[str] | None = None


class _ServerMetadata(msgspec.Struct):
    name: str
    version: str = ""
    extensions: list[str] = []


class Metadata(msgspec.Struct, frozen=True):
    """What a server says of a model; shapes are whole, with the batch dimension, where there is one.

    Attributes:
        inputs, outputs: Name, datatype and shape of each tensor.
        platform: As the server calls it.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    platform: str = ""


_JSON = msgspec.json.Encoder()
_REPLY = msgspec.json.Decoder(_Reply)
_METADATA = msgspec.json.Decoder(_Metadata)
_SERVER = msgspec.json.Decoder(_ServerMetadata)


def encode_request(
    arrays: Mapping[str, Array],
    datatypes: Mapping[str, str],
    *,
    binary: bool,
    parameters: Mapping[str, Any] | None = None,
    outputs: Sequence[str] = (),
) -> tuple[bytes, int | None]:
    """Encode an inference request.

    Args:
        arrays: Inputs by name.
        datatypes: V2 datatype of each input; what is left out is told from the array.
        binary: As blobs behind the JSON; else as JSON.
        parameters: Parameters of the request.
        outputs: Outputs that are wanted; empty = all.

    Returns:
        The body, and the length of its JSON where blobs follow (else None).

    Raises:
        InvalidRequest: A tensor cannot travel as JSON.
    """
    inputs: list[_Sent] = []
    blobs: list[bytes] = []
    for name, array in arrays.items():
        datatype = datatypes.get(name) or datatype_of(array)
        sent = _Sent(name, array.shape, datatype)
        if binary:
            blob = to_blob(datatype, array)
            blobs.append(blob)
            sent.parameters = {"binary_data_size": len(blob)}
        else:
            sent.data = _input_json(name, datatype, array)
        inputs.append(sent)
    given = dict(parameters or {})
    if binary:
        given["binary_data_output"] = True
    wanted = [_Named(name) for name in outputs] or None
    head = _JSON.encode(_Request(inputs, given, wanted))
    return (b"".join((head, *blobs)), len(head)) if binary else (head, None)


def decode_reply(body: bytes | bytearray, header_length: str | None) -> tuple[str, str, dict[str, Array]]:
    """Decode an inference reply into the model's name, its version, and its outputs.

    Args:
        body: The whole body; arrays share the memory of a bytearray, and can be written to.
        header_length: Value of ``Inference-Header-Content-Length``, or None.

    Raises:
        ProtocolError: It is no V2 reply; the message says where.
    """
    text: bytes | bytearray = body
    blobs = memoryview(b"")
    if header_length is not None:
        if not header_length.isdigit() or int(header_length) > len(body):
            raise ProtocolError(
                f"the reply says that its JSON has {header_length[:20]} bytes, and has {len(body)} in all"
            )
        blobs = memoryview(body)[int(header_length) :]
        text = body[: int(header_length)]
    try:
        reply = _REPLY.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(f"the reply is no V2 inference response: {error}") from None
    arrays: dict[str, Array] = {}
    at = 0
    for output in reply.outputs:
        size = (output.parameters or {}).get("binary_data_size")
        try:
            check_datatype(output.name, output.datatype)
            if size is None:
                arrays[output.name] = from_json(output.name, output.datatype, output.shape, output.data)
            else:
                if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(blobs) - at:
                    raise InvalidRequest(
                        f"input '{output.name}': binary_data_size is {size}, {len(blobs) - at} bytes are left"
                    )
                blob = blobs[at : at + size]
                arrays[output.name] = from_blob(output.name, output.datatype, output.shape, blob)
                at += size
        except InvalidRequest as error:
            raise ProtocolError(f"the reply is wrong: output{error.message.removeprefix('input')}") from None
    return reply.model_name, reply.model_version or "", arrays


def parse_metadata(body: bytes) -> Metadata:
    """Return what a model's metadata says.

    Raises:
        ProtocolError: It is no V2 metadata.
    """
    try:
        found = _METADATA.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"no V2 metadata: {error}") from None
    return Metadata(_specs(found.inputs), _specs(found.outputs), found.platform)


def parse_server(body: bytes) -> tuple[str, frozenset[str]]:
    """Return a server's name and its extensions.

    Raises:
        ProtocolError: It is no V2 metadata.
    """
    try:
        found = _SERVER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"no V2 server metadata: {error}") from None
    return found.name, frozenset(found.extensions)


def contract_headers(contract: Contract) -> dict[str, str]:
    """Return the headers that carry a contract; what is at its default is left out.

    Raises:
        InvalidRequest: The tenant cannot stand in a header.
    """
    headers: dict[str, str] = {}
    if contract.priority != Priority.NORMAL:
        headers["semaforo-priority"] = Priority(contract.priority).name.lower()
    if contract.deadline_s is not None:
        headers["semaforo-deadline-ms"] = f"{contract.deadline_s * 1e3:.12g}"
    if contract.min_quality:
        headers["semaforo-min-quality"] = repr(contract.min_quality)
    if contract.max_cost is not None:
        headers["semaforo-max-cost"] = repr(contract.max_cost)
    if contract.privacy != Privacy.PUBLIC:
        headers["semaforo-privacy"] = Privacy(contract.privacy).name.lower()
    if contract.tenant:
        headers["semaforo-tenant"] = header_text("tenant", contract.tenant)
    if contract.fresh:
        headers["semaforo-cache"] = "off"
    return headers


def header_text(what: str, text: str) -> str:
    """Return a text that may stand in a header.

    Raises:
        InvalidRequest: It holds what a header cannot carry.
    """
    if not text.isascii() or not text.isprintable():
        raise InvalidRequest(
            f"{what} '{text[:40]}' takes printable ASCII characters, as it travels in a header"
        )
    return text


def reply_error(status: int, headers: Mapping[str, str], body: bytes, where: str) -> SemaforoError:
    """Return the error that a response stands for, of the class it had at the server.

    Args:
        status: Its status, not 2xx.
        headers: Looked up by names in lower case.
        body: V2's error, OpenAI's, or neither.
        where: Address of the server, for messages.
    """
    message, code = _said(body)
    if not message:
        kind = headers.get("content-type", "no content type").partition(";")[0]
        return ProtocolError(
            f"{where} answered {status} ({kind}) without saying why: is this a Semaforo or V2 server?"
        )
    code = headers.get(ERROR_CODE) or code or _CODES.get(status, "internal")
    return error_from(code, message, _retry_after_s(headers))


_CODES = {
    400: "invalid_request", 401: "unauthenticated", 403: "forbidden", 404: "not_found", 405: "method_not_allowed",
    408: "request_timeout", 409: "conflict", 413: "too_large", 422: "unsatisfiable", 429: "refused",
    499: "cancelled", 500: "model_failed", 502: "protocol", 503: "refused", 504: "expired",
}  # fmt: skip


def _said(body: bytes) -> tuple[str, str]:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "", ""
    said = found.get("error") if isinstance(found, dict) else None
    if isinstance(said, dict):
        message, code = said.get("message"), said.get("code")
        return message if isinstance(message, str) else "", code if isinstance(code, str) else ""
    return said if isinstance(said, str) else "", ""


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    for name, unit_s in (("semaforo-retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit_s
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None


def _specs(tensors: list[_Tensor] | None) -> tuple[TensorSpec, ...]:
    specs = []
    for tensor in tensors or ():
        about = tensor.parameters or {}
        labels = about.get("labels")
        specs.append(
            TensorSpec(
                tensor.name,
                tensor.datatype,
                tuple(tensor.shape),
                about.get("optional") is True,
                tuple(map(str, labels)) if isinstance(labels, list) else (),
            )
        )
    return tuple(specs)


def _input_json(name: str, datatype: str, array: Array) -> list[Any]:
    try:
        return to_json(name, datatype, array)
    except InvalidRequest as error:
        reason = error.message.partition(":")[0].removeprefix("output")
        raise InvalidRequest(f"input{reason}, and the server takes JSON only") from None
