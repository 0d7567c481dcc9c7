"""Which route takes a method and a path.

Rules this module keeps:

1. Segments are split before they are percent-decoded, so that a name may hold an encoded slash.
2. A fixed segment goes before ``{name}``; HEAD is taken by GET's route; one slash at the end is ignored.
3. A path that was found is found again by one look-up: a bounded memory of paths, emptied when it is full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import unquote

from semaforo.errors import MethodNotAllowed, NotFound, nearest
from semaforo.server.http import Route

_MOST_PATHS = 1024


class WrongMethod(MethodNotAllowed):
    """The path exists and does not take this method.

    Attributes:
        allowed: Methods that it takes.
    """

    def __init__(self, method: str, path: str, allowed: Sequence[str]) -> None:
        super().__init__(f"{path} takes {' and '.join(allowed)}, not {method}")
        self.allowed = tuple(allowed)


class Routing:
    """The routes of an application."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._patterns: list[tuple[tuple[str, ...], dict[str, Route]]] = []
        by_pattern: dict[tuple[str, ...], dict[str, Route]] = {}
        for route in routes:
            by_pattern.setdefault(tuple(route.pattern.split("/")), {})[route.method] = route
        # A fixed segment sorts before a captured one, segment by segment.
        self._patterns = sorted(by_pattern.items(), key=lambda item: [s.startswith("{") for s in item[0]])
        self._found: dict[tuple[str, bytes], tuple[Route, Mapping[str, str]]] = {}

    def find(self, method: str, raw_path: bytes) -> tuple[Route, Mapping[str, str]]:
        """Return the route and what its pattern captured.

        Args:
            method: HTTP method.
            raw_path: Path as sent, not decoded.

        Raises:
            NotFound: No route has this path.
            MethodNotAllowed: A route has this path and not this method.
        """
        known = self._found.get((method, raw_path))
        if known is not None:
            return known
        path = raw_path.decode("ascii", "replace")
        segments = (path[:-1] if len(path) > 1 and path.endswith("/") else path).split("/")
        wanted = "GET" if method == "HEAD" else method
        allowed: set[str] = set()
        for pattern, routes in self._patterns:
            params = _match(pattern, segments)
            if params is None:
                continue
            route = routes.get(wanted)
            if route is not None:
                if len(self._found) >= _MOST_PATHS:
                    self._found.clear()
                self._found[method, raw_path] = route, params
                return route, params
            allowed.update(routes)
        if allowed:
            raise WrongMethod(method, unquote(path), sorted(allowed))
        fixed = ["/".join(pattern) for pattern, _ in self._patterns]
        raise NotFound(f"nothing is at {unquote(path)[:200]}.{nearest(unquote(path)[:200], fixed)}")


def _match(pattern: tuple[str, ...], segments: list[str]) -> dict[str, str] | None:
    if len(pattern) != len(segments):
        return None
    params: dict[str, str] = {}
    for want, got in zip(pattern, segments, strict=True):
        if want.startswith("{"):
            if not got:
                return None
            params[want[1:-1]] = unquote(got)
        elif want != got:
            return None
    return params
