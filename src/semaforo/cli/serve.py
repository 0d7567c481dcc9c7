"""``semaforo serve``."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path

import uvloop
from rich.console import Console

from semaforo.build import Blueprint, blueprint, engine_for, server_settings
from semaforo.cli.progress import loading
from semaforo.cli.supervisor import tell_supervisor
from semaforo.errors import ConfigError, NotReady, nearest
from semaforo.server.listener import check_free
from semaforo.server.run import serve
from semaforo.server.settings import ServerSettings

_LEVELS = ("debug", "info", "warning", "error")


def run(fleet: Path, host: str | None, http_port: int | None, grpc_port: int | None, log_level: str) -> None:
    """Serve a fleet file until SIGINT or SIGTERM.

    Raises:
        ConfigError: The file, an option or the address is wrong.
        NotReady: Not one model could be loaded.
    """
    if log_level not in _LEVELS:
        raise ConfigError(
            f"--log-level '{log_level}' is none of {', '.join(_LEVELS)}.{nearest(log_level, _LEVELS)}"
        )
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # A script's shell has what it starts in the background ignore SIGINT, which `asyncio.Runner` would keep to.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Until requests are taken there is nothing to finish, so either signal ends alike.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    plan = blueprint(fleet)
    settings = server_settings(plan, host=host, http_port=http_port, grpc_port=grpc_port)
    # Models may take minutes to load, and memory that the server which has the port is using.
    check_free(settings.host, settings.port)
    if settings.grpc_port is not None:
        check_free(settings.host, settings.grpc_port, "--grpc-port")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(plan, settings))


async def _serve(plan: Blueprint, settings: ServerSettings) -> None:
    console = Console(stderr=True, highlight=False)
    engine = engine_for(
        plan.journal, plan.ring, plan.secrets, plan.history, plan.routers, plan.tasks, plan.sources
    )
    try:
        async with loading(engine, sum(scaling.least for scaling in plan.catalog.scaling.values())):
            await engine.start(plan.catalog)
        replicas = engine.replicas()
        failed = [status for status in replicas if status.state != "ready"]
        for status in failed:
            reason = status.last_error or status.state
            text = f"not in service: {status.id}: {reason}"
            console.print(text, style="yellow", markup=False, soft_wrap=True)
        if replicas and len(failed) == len(replicas):
            raise NotReady("no model could be loaded; `semaforo check` says more")
        ready = len(replicas) - len(failed)

        def announce(url: str) -> None:
            tasks = ", ".join(plan.catalog.tasks)
            print(f"semaforo serves {tasks} with {ready} replicas at {url} · Ctrl-C stops", flush=True)
            tell_supervisor("READY=1")

        await serve(engine, settings, ready=announce)
    except BaseException:
        await engine.stop(0.1)
        raise
