"""``/v1/models``: every name that one of OpenAI's routes takes."""

from __future__ import annotations

import time

from semaforo.server.http import HttpRequest, Response, json_response
from semaforo.server.openai.door import Door
from semaforo.server.openai.names import all_names
from semaforo.wire.openai import UnknownModel, model_list, model_object


class Models:
    """Lists what can be asked."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._since_s = int(time.time())

    async def list(self, request: HttpRequest) -> Response:
        """``GET /v1/models``."""
        names = all_names(self._door.catalog)
        return json_response(model_list(model_object(name, self._since_s) for name in names))

    async def retrieve(self, request: HttpRequest) -> Response:
        """``GET /v1/models/{model}``; a name with a slash, as others give their models, may stand as it is."""
        name = "/".join(request.params.values())
        names = all_names(self._door.catalog)
        if name not in names:
            raise UnknownModel(name, names)
        return json_response(model_object(name, self._since_s))
