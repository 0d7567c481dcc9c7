"""``/v1/files``: the inputs and outputs of batches, as OpenAI's clients handle them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from semaforo.errors import InvalidRequest, NotFound
from semaforo.repository.deferred import Bounds, FileRecord, Store, files
from semaforo.server.deferred.names import new_name
from semaforo.server.deferred.owner import tenant_for, visible_to
from semaforo.server.deferred.paging import Page, page_response
from semaforo.server.http import HttpRequest, Response, Route, StreamResponse, json_response
from semaforo.wire.multipart import Part, parse_form
from semaforo.wire.openai_fields import InvalidField

_MOST = 10_000
_FIELDS = ("file", "purpose", "expires_after[anchor]", "expires_after[seconds]")


class Files:
    """The routes of files."""

    def __init__(self, store: Store, bounds: Bounds) -> None:
        self._store = store
        self._bounds = bounds

    async def create(self, request: HttpRequest) -> Response:
        """``POST /v1/files``: a form with ``file`` and ``purpose: batch``."""
        tenant = tenant_for(request)
        form = parse_form(request.header("content-type") or "", await request.body())
        fields = {part.name: part for part in form}
        for name in fields:
            if name not in _FIELDS:
                raise InvalidField(name, f"is none of {', '.join(_FIELDS)}")
        purpose = fields["purpose"].text if "purpose" in fields else ""
        if purpose != "batch":
            raise InvalidField("purpose", f"is '{purpose[:40]}'; files are kept for 'batch' only")
        file = fields.get("file")
        if file is None or file.filename is None:
            raise InvalidField("file", "is missing: give the file as a part with a filename")
        if not file.data:
            raise InvalidField("file", "is empty: give one JSON object on each line")
        now = time.time()
        record = FileRecord(
            id=new_name("file"),
            tenant=tenant,
            filename=file.filename[:255],
            purpose=purpose,
            bytes=len(file.data),
            created=now,
            expires=now + self._keep_s(fields.get("expires_after[seconds]")),
        )
        await self._store.run(files.put, record, file.data, self._bounds)
        return json_response(shown_file(record))

    async def files(self, request: HttpRequest) -> Response:
        """``GET /v1/files``."""
        page = Page(request, ("purpose", "order"), _MOST)
        order = page.fields.get("order", "desc")
        if order not in ("asc", "desc"):
            raise InvalidField("order", f"is '{order[:20]}'; it takes asc or desc")
        purpose, newest_first = page.fields.get("purpose", ""), order == "desc"
        found = await self._store.run(
            files.listed, visible_to(request), purpose, page.after, page.limit + 1, newest_first
        )
        return page_response([shown_file(record) for record in found], page.limit)

    async def file(self, request: HttpRequest) -> Response:
        """``GET /v1/files/{id}``."""
        return json_response(shown_file(await self._find(request)))

    async def content(self, request: HttpRequest) -> Response:
        """``GET /v1/files/{id}/content``."""
        record = await self._find(request)
        headers = ((b"content-type", b"application/octet-stream"),)
        return StreamResponse(self._parts(record.id), headers=headers)

    async def delete(self, request: HttpRequest) -> Response:
        """``DELETE /v1/files/{id}``."""
        record = await self._find(request)
        await self._store.run(files.drop, record.id)
        return json_response({"id": record.id, "object": "file", "deleted": True})

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("POST", "/v1/files", "infer", self.create),
            Route("GET", "/v1/files", "infer", self.files),
            Route("GET", "/v1/files/{id}", "infer", self.file),
            Route("DELETE", "/v1/files/{id}", "infer", self.delete),
            Route("GET", "/v1/files/{id}/content", "infer", self.content),
        ]

    async def _find(self, request: HttpRequest) -> FileRecord:
        name = request.params["id"]
        record = await self._store.run(files.find, name, visible_to(request))
        if record is None:
            raise NotFound(f"no file has the id '{name[:100]}'")
        return record

    async def _parts(self, file_id: str) -> AsyncIterator[bytes]:
        number = 0
        while (part := await self._store.run(files.part, file_id, number)) is not None:
            yield part
            number += 1

    def _keep_s(self, field: Part | None) -> float:
        if field is None:
            return self._bounds.keep_s
        text = field.text
        if not text.isascii() or not text.isdigit() or not 0 < int(text[:12]) <= self._bounds.keep_s:
            raise InvalidField(
                field.name, f"is '{text[:20]}'; it takes whole seconds up to {self._bounds.keep_s:.0f} here"
            )
        return float(text)


async def whole(store: Store, file_id: str) -> bytes:
    """Return a file's content.

    Raises:
        InvalidRequest: It is gone.
    """
    parts: list[bytes] = []
    while (part := await store.run(files.part, file_id, len(parts))) is not None:
        parts.append(part)
    if not parts:
        raise InvalidRequest(f"the file {file_id} is gone")
    return b"".join(parts)


def shown_file(record: FileRecord) -> dict[str, Any]:
    """Return a file in OpenAI's form."""
    return {
        "id": record.id,
        "object": "file",
        "bytes": record.bytes,
        "created_at": int(record.created),
        "expires_at": int(record.expires),
        "filename": record.filename,
        "purpose": record.purpose,
        "status": "processed",
        "status_details": None,
    }
