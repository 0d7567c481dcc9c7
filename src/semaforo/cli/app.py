"""All commands, by name. What a command needs is imported when it runs, so that ``--help`` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semaforo.cli.bench import EPILOG, bench
from semaforo.cli.graph import graph
from semaforo.cli.options import DEFAULT_URL, ApiKey, FleetPath, Url
from semaforo.cli.router import router

app = typer.Typer(
    name="semaforo",
    help="One endpoint for a fleet of models: it decides which model, variant and replica answers each "
    "request, and says why.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(
    epilog="Examples: semaforo init models · semaforo init /srv/repository --output /etc/semaforo/fleet.yaml"
)
def init(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where the models are: a repository, or loose files.")
    ] = Path("."),
    output: Annotated[Path, typer.Option(help="The fleet file to write.")] = Path("fleet.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Write over a file that exists.")] = False,
) -> None:
    """Write a commented fleet file for the models found in a folder."""
    from semaforo.cli.init import run

    run(folder, output, force)


@app.command(epilog="Example: semaforo serve fleet.yaml --http-port 8090")
def serve(
    fleet: FleetPath = Path("fleet.yaml"),
    host: Annotated[str | None, typer.Option(help="Address to bind, instead of the file's.")] = None,
    http_port: Annotated[
        int | None,
        typer.Option(help="Port for HTTP, instead of the file's; 0 = a free one.", min=0, max=65535),
    ] = None,
    grpc_port: Annotated[
        int | None,
        typer.Option(help="Port for gRPC, instead of the file's; 0 = a free one.", min=0, max=65535),
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "warning",
) -> None:
    """Serve a fleet until Ctrl-C."""
    from semaforo.cli.serve import run

    run(fleet, host, http_port, grpc_port, log_level)


@app.command(epilog="Example: semaforo check fleet.yaml")
def check(
    fleet: FleetPath = Path("fleet.yaml"),
    upstreams: Annotated[bool, typer.Option(help="Whether models behind a url are asked too.")] = True,
) -> None:
    """Load and validate everything that a fleet file names, and list all problems."""
    from semaforo.cli.check import run

    run(fleet, upstreams)


@app.command(
    epilog="Examples: semaforo infer digits --data '{\"image\": [0, 0, 5, …]}' --min-quality 0.95 · "
    "semaforo infer digits --data @rows.json --fleet fleet.yaml · semaforo infer chat --text 'Hello'"
)
def infer(
    target: Annotated[str, typer.Argument(help="A task, a model or an alias.", show_default=False)],
    data: Annotated[str, typer.Option(help="Inputs by name as JSON, or @FILE, or - for stdin.")] = "",
    text: Annotated[str, typer.Option(help="What to say to a chat.")] = "",
    url: Url = DEFAULT_URL,
    fleet: Annotated[
        Path | None, typer.Option(help="Run this fleet file here instead of asking a server.")
    ] = None,
    key: ApiKey = "",
    deadline: Annotated[str | None, typer.Option(help="Time the answer is of use within, as 20ms.")] = None,
    min_quality: Annotated[float, typer.Option(help="Least quality, 0 to 1.")] = 0.0,
    max_cost: Annotated[float | None, typer.Option(help="Most US dollars.")] = None,
    priority: Annotated[str, typer.Option(help="critical, high, normal or low.")] = "normal",
    privacy: Annotated[str, typer.Option(help="Class of the data: public, internal or site.")] = "public",
    tenant: Annotated[str, typer.Option(help="On whose behalf.")] = "",
    version: Annotated[str, typer.Option(help="Pinned version.")] = "",
    why: Annotated[bool, typer.Option("--why", help="Say why on stderr.")] = False,
) -> None:
    """Ask a server, or a fleet file without a server, for one answer."""
    from semaforo.api.contract import contract_of
    from semaforo.cli.infer import Question, run

    contract = contract_of(deadline, min_quality, max_cost, priority, privacy, tenant)
    run(Question(target, version, data, text, contract, why), url, key, fleet)


@app.command(
    epilog="Examples: semaforo evaluate digits · semaforo evaluate digits --data rows.csv --metric top-k --best 3 "
    "· semaforo evaluate digits --model digits-net --write"
)
def evaluate(
    target: Annotated[str, typer.Argument(help="A task, a model or an alias.", show_default=False)],
    fleet: Annotated[Path, typer.Option(help="The fleet file.")] = Path("fleet.yaml"),
    data: Annotated[
        Path | None,
        typer.Option(help="Labelled rows (.parquet, .csv, .jsonl, .npz), instead of the task's `evaluate`."),
    ] = None,
    model: Annotated[str, typer.Option(help="This model only.")] = "",
    variant: Annotated[str, typer.Option(help="Variants of this name only.")] = "",
    metric: Annotated[
        str,
        typer.Option(
            help="accuracy, macro-f1, top-k (classes); r2, mae, rmse (numbers); exact, contains, final (chats)."
        ),
    ] = "",
    output: Annotated[str, typer.Option(help="The output to judge, where the task gives several.")] = "",
    best: Annotated[int, typer.Option(help="Best-scored classes among which top-k looks.", min=1)] = 5,
    rows: Annotated[int, typer.Option(help="Take so many rows from the beginning; 0 = all.", min=0)] = 0,
    privacy: Annotated[str, typer.Option(help="Class of the data: public, internal or site.")] = "public",
    write: Annotated[
        bool, typer.Option("--write", help="Note the quality beside each file, for `serve` to route by.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure the quality of each variant of a task on labelled rows."""
    from semaforo.cli.evaluate import Evaluation, run

    asked = Evaluation(target, data, model, variant, metric, output, best, rows, privacy)
    run(asked, fleet, write, as_json)


@app.command(epilog="Example: semaforo feedback 7f3a9c2e11d04b6a --score 1")
def feedback(
    request: Annotated[str, typer.Argument(help="Whole id of an answered request.")],
    score: Annotated[
        float | None, typer.Option(help="What the answer was worth: 0 (of no use) to 1 (perfect).")
    ] = None,
    label: Annotated[str, typer.Option(help="The right answer, as JSON or a word.")] = "",
    better_than: Annotated[str, typer.Option(help="Id of a request whose answer was not as good.")] = "",
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
) -> None:
    """Say what an answer was worth, so that the router learns from it."""
    from semaforo.cli.feedback import run

    run(request, score, label, better_than, url, key)


@app.command(epilog="Example: semaforo explain 7f3a")
def explain(
    request: Annotated[
        str,
        typer.Argument(metavar="[ID]", help="Id of a request, or a beginning; the latest where left out."),
    ] = "",
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
) -> None:
    """Say why a request went where it went: what was considered, ruled out, scored and picked."""
    from semaforo.cli.explain import run

    run(request, url, key)


app.command(epilog=EPILOG)(bench)
app.add_typer(graph)
app.add_typer(router)


@app.command(epilog="Example: semaforo replay journal.bin")
def replay(
    journal: Annotated[Path, typer.Argument(metavar="FILE", help="A journal.", show_default=False)],
) -> None:
    """Replay a journal and compare every decision; exit code 1 at the first difference."""
    from semaforo.cli.replay import run

    run(journal)


@app.command(epilog="Examples: semaforo top http://127.0.0.1:8090 --interval 5s · semaforo top --once")
def top(
    url: Annotated[
        str, typer.Argument(help="Address of the server.", envvar="SEMAFORO_URL", show_envvar=False)
    ] = DEFAULT_URL,
    key: ApiKey = "",
    interval: Annotated[str, typer.Option(help="Time between two looks, which rates are taken over.")] = "1s",
    once: Annotated[bool, typer.Option("--once", help="Print one table after one interval.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one look as JSON.")] = False,
) -> None:
    """Watch a fleet: queues, rates, latencies and replicas, until q or Ctrl-C."""
    from semaforo.cli.top import run

    run(url, key, interval, once, as_json)


@app.command()
def version() -> None:
    """Print the version."""
    from semaforo import __version__

    typer.echo(__version__)
