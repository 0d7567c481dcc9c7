"""Finding the route of a method and a path."""

from __future__ import annotations

import pytest

from semaforo.errors import NotFound
from semaforo.server.http import HttpRequest, HttpResponse, Route
from semaforo.server.routing import Routing, WrongMethod


async def handler(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


ROUTES = [
    Route("GET", "/v2/models/{model}", "describe", handler),
    Route("GET", "/v2/models/stats", "read", handler),
    Route("POST", "/v2/models/{model}/infer", "infer", handler),
    Route("GET", "/v2/models/{model}/versions/{version}", "describe", handler),
    Route("POST", "/v2/models/{model}/versions/{version}", "operate", handler),
]


@pytest.mark.parametrize("known_before", [False, True])
@pytest.mark.parametrize(
    ("method", "path", "pattern", "params"),
    [
        ("GET", "/v2/models/stats", "/v2/models/stats", {}),
        ("GET", "/v2/models/digits", "/v2/models/{model}", {"model": "digits"}),
        ("HEAD", "/v2/models/digits", "/v2/models/{model}", {"model": "digits"}),
        ("GET", "/v2/models/digits/", "/v2/models/{model}", {"model": "digits"}),
        ("POST", "/v2/models/stats/infer", "/v2/models/{model}/infer", {"model": "stats"}),
        ("POST", "/v2/models/a%2Fb%20c/infer", "/v2/models/{model}/infer", {"model": "a/b c"}),
        (
            "GET",
            "/v2/models/m/versions/v10",
            "/v2/models/{model}/versions/{version}",
            {"model": "m", "version": "v10"},
        ),
    ],
)
def test_a_path_finds_its_route(
    method: str, path: str, pattern: str, params: dict[str, str], known_before: bool
) -> None:
    routing = Routing(ROUTES)
    if known_before:
        routing.find(method, path.encode())
    route, found = routing.find(method, path.encode())
    assert (route.pattern, found) == (pattern, params)


@pytest.mark.parametrize("path", ["/", "/v2/models", "/v2/models//infer", "/v2/models/m/infer/more", "/\xff"])
def test_no_route_is_not_found(path: str) -> None:
    with pytest.raises(NotFound, match="nothing is at"):
        Routing(ROUTES).find("GET", path.encode("latin-1"))


def test_the_wrong_method_says_which_are_right() -> None:
    with pytest.raises(WrongMethod) as caught:
        Routing(ROUTES).find("DELETE", b"/v2/models/m/versions/1")
    assert caught.value.allowed == ("GET", "POST")
    assert caught.value.status == 405


def test_the_memory_of_paths_is_bounded() -> None:
    routing = Routing(ROUTES)
    for number in range(5000):
        _, params = routing.find("GET", b"/v2/models/%d" % number)
        assert params == {"model": str(number)}
    assert len(routing._found) <= 1024
