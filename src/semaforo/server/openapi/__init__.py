"""The OpenAPI 3.1 description of what a server serves, made from its own routes."""

from semaforo.server.openapi.document import document, routes

__all__ = ["document", "routes"]
