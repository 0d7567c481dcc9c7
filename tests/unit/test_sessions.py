"""Sessions: remembered by tenant and graph, for as long as the graph says, and not without bound."""

from __future__ import annotations

import numpy as np

from semaforo.entities import Contract, Ref, Request, TensorSpec
from semaforo.graph.graph import Graph
from semaforo.graph.values import Values
from semaforo.live.sessions import Sessions


def graph(name: str) -> Graph:
    return Graph(
        name=name,
        task="t",
        steps=(),
        answer={},
        session=(TensorSpec("n", "INT64"),),
        remember={"n": "input.n"},
    )


def request(session: str = "s", tenant: str = "a") -> Request:
    return Request("r", "t", contract=Contract(tenant=tenant), ref=Ref(1), affinity=session)


def put(sessions: Sessions, value: int, name: str = "g", keep_s: float = 10.0, **asked: str) -> None:
    values = Values(1, {"n": np.array([value])}, {})
    sessions.put(graph(name), request(**asked), values, keep_s)


def got(sessions: Sessions, name: str = "g", **asked: str) -> int:
    return int(sessions.get(graph(name), request(**asked))["n"][0])


def test_each_graph_says_how_long_it_remembers() -> None:
    now = [0.0]
    sessions = Sessions(lambda: now[0])
    put(sessions, 1, "long", keep_s=100.0)
    put(sessions, 2, "short", keep_s=1.0)
    now[0] = 1.5
    assert got(sessions, "short") == 0
    assert got(sessions, "long") == 1
    now[0] = 101.0
    assert got(sessions, "long") == 1
    now[0] = 202.0
    assert got(sessions, "long") == 0
    assert len(sessions) == 0


def test_tenants_and_sessions_are_apart() -> None:
    sessions = Sessions(lambda: 0.0)
    put(sessions, 1)
    put(sessions, 2, tenant="b")
    put(sessions, 3, session="other")
    put(sessions, 4, session="")
    assert (got(sessions), got(sessions, tenant="b"), got(sessions, session="other")) == (1, 2, 3)
    assert got(sessions, session="") == 0


def test_the_least_lately_used_goes_first_where_there_is_too_much() -> None:
    sessions = Sessions(lambda: 0.0, most_bytes=24)
    for number in (1, 2, 3):
        put(sessions, number, session=str(number))
    assert got(sessions, session="1") == 1
    put(sessions, 4, session="4")
    assert [got(sessions, session=str(n)) for n in (1, 2, 3, 4)] == [1, 0, 3, 4]
