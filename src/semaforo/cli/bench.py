"""``semaforo bench``: its options. What it does is in `semaforo.cli.bench_run`, imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semaforo.cli.options import DEFAULT_URL, ApiKey

EPILOG = (
    "Examples: semaforo bench --task digits --rate 200/s --deadline 50ms · "
    "semaforo bench --model net --concurrency 32 --binary · "
    "semaforo bench --chat --task chat --rate 5/s --stream"
)


def bench(
    url: Annotated[
        str, typer.Argument(help="Address of the server.", envvar="SEMAFORO_URL", show_envvar=False)
    ] = DEFAULT_URL,
    task: Annotated[str, typer.Option(help="Task to ask for.", show_default=False)] = "",
    model: Annotated[str, typer.Option(help="Model to ask for, instead of a task.", show_default=False)] = "",
    chat: Annotated[bool, typer.Option("--chat", help="Ask by OpenAI's chat protocol, not V2.")] = False,
    rate: Annotated[
        str | None, typer.Option(help="Requests per second of an open loop; 100/s where nothing is said.")
    ] = None,
    arrivals: Annotated[
        str, typer.Option(metavar="PROCESS", help="poisson, uniform, or a FILE: a trace.")
    ] = "poisson",
    speed: Annotated[float, typer.Option(help="Play a trace so many times as fast.", min=1e-3)] = 1.0,
    concurrency: Annotated[
        int | None, typer.Option(help="A closed loop of so many, instead of a rate.", min=1, max=10_000)
    ] = None,
    duration: Annotated[str, typer.Option(help="For how long.")] = "10s",
    max_requests: Annotated[int, typer.Option(help="Never more than so many.", min=1)] = 1_000_000,
    data: Annotated[
        Path | None,
        typer.Option(help="JSON, whole or one a line: inputs by name, V2 bodies, or a chat's prompts."),
    ] = None,
    rows: Annotated[int, typer.Option(help="Rows of each request with random data.", min=1)] = 1,
    shape: Annotated[
        list[str] | None, typer.Option(metavar="NAME=DIMS", help="Sizes left open, as image=3x224x224.")
    ] = None,
    binary: Annotated[bool, typer.Option("--binary", help="Tensors as blobs, not JSON.")] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Have a chat's answers streamed.")] = False,
    prompt: Annotated[str, typer.Option(help="What to say to a chat.")] = "Why do signals turn red?",
    max_tokens: Annotated[int, typer.Option(help="Most tokens of a chat's answer.", min=0)] = 64,
    deadline: Annotated[str | None, typer.Option(help="Time an answer is of use within, as 50ms.")] = None,
    priority: Annotated[str, typer.Option(help="critical, high, normal or low.")] = "normal",
    connections: Annotated[int, typer.Option(help="Most connections of an open loop.", min=1)] = 1024,
    processes: Annotated[int, typer.Option(help="Generators to share the load.", min=1, max=64)] = 1,
    wait: Annotated[str, typer.Option(help="For how long the last answers are waited for.")] = "10s",
    seed: Annotated[int, typer.Option(help="Of arrivals and data.", min=0)] = 0,
    key: ApiKey = "",
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep the figures as JSON; - = print only these.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the latencies, as PNG or SVG.")
    ] = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Load a server on another machine, whose operator agrees.")
    ] = False,
) -> None:
    """Put load on a server of V2 or OpenAI's protocol, and measure latency, goodput and who answered."""
    from semaforo.cli.bench_run import Asked, run

    asked = Asked(
        url=url, task=task, model=model, chat=chat or stream, rate=rate, arrivals=arrivals, speed=speed,
        concurrency=concurrency, duration=duration, max_requests=max_requests, data=data, rows=rows,
        shapes=tuple(shape or ()), binary=binary, stream=stream, prompt=prompt, max_tokens=max_tokens,
        deadline=deadline, priority=priority, connections=connections, processes=processes, wait=wait, seed=seed,
        key=key, allow_remote=allow_remote,
    )  # fmt: skip
    run(asked, json, plot)
