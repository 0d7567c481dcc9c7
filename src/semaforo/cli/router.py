"""``semaforo router``: commands about trained routers, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semaforo.cli.options import DEFAULT_URL, ApiKey, Url
from semaforo.errors import InvalidRequest

router = typer.Typer(
    name="router", help="Train routers, judge them and roll them out.", no_args_is_help=True, rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
TableArgument = Annotated[
    Path,
    typer.Argument(
        metavar="TABLE", show_default=False,
        help="Scores, one row for each request and model (.parquet, .csv), or the history of a fleet (.db); "
        "columns model, score, and task, prompt, feature.NAME, embedding, cost, answer, id, group, propensity "
        "where known.",
    ),
]  # fmt: skip
Cascade = Annotated[
    str, typer.Option(metavar="MODEL", help="Look at this model's answer as well: a verifier for a cascade.")
]
Report = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write a page and pictures here.")]
TaskArgument = Annotated[str, typer.Argument(metavar="TASK", help="Task of the fleet.", show_default=False)]
Why = Annotated[str, typer.Option(help="What those are told who look later.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@router.command(epilog="Example: semaforo router train scores.parquet -o routers/chat.router --report report")
def train(
    table: TableArgument,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Where the router goes.")
    ] = Path("router.router"),
    cascade: Cascade = "",
    embed: Annotated[
        str,
        typer.Option(
            metavar="FLEET:MODEL",
            help="Have this model of a fleet embed the prompts, and learn from that too.",
        ),
    ] = "",
    folds: Annotated[int, typer.Option(help="Folds in which it is tried out.", min=2, max=20)] = 5,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    report: Report = None,
    as_json: AsJson = False,
) -> None:
    """Train a router on a table of scores, and say out of fold what it is worth."""
    from semaforo.cli.router_run import Training, run_train

    run_train(Training(table, output, cascade, folds, seed, report, as_json, embed))


@router.command(epilog="Example: semaforo router evaluate history.db --router routers/chat.router")
def evaluate(
    table: TableArgument,
    file: Annotated[Path, typer.Option("--router", metavar="FILE", help="The router.")] = Path(
        "router.router"
    ),
    keep: Annotated[
        float, typer.Option(help="Share of the best predicted quality that it keeps.", min=0.0, max=1.0)
    ] = 1.0,
    cascade: Cascade = "",
    as_json: AsJson = False,
) -> None:
    """Judge a router by rows it has not seen: by all scores, or off policy by a log with propensities."""
    from semaforo.cli.router_run import run_evaluate

    run_evaluate(table, file, keep, cascade, as_json)


@router.command(
    epilog="Examples: semaforo router frontier --url http://127.0.0.1:8080 --png f.png · semaforo router frontier "
    "history.db · semaforo router frontier scores.parquet --router routers/chat.router"
)
def frontier(
    table: Annotated[
        Path | None,
        typer.Argument(
            metavar="[TABLE]",
            show_default=False,
            help="Scores as for `train`, or the history of a fleet (.db); a running server where left out.",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--router", metavar="FILE", help="The router; trained out of fold if none."),
    ] = None,
    task: Annotated[str, typer.Option(help="Only this task of a fleet.")] = "",
    png: Annotated[Path | None, typer.Option("--png", metavar="FILE", help="Draw it here.")] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
) -> None:
    """Show what quality can be had at which cost: in a table of scores, or in a fleet and where it stands."""
    if table is None and file is not None:
        raise InvalidRequest("--router needs a table of scores to judge it by: name one")
    if table is None:
        from semaforo.cli.router_frontier import run_of_server

        run_of_server(url, key, task, png, as_json)
    elif table.suffix == ".db" and file is None:
        from semaforo.cli.router_frontier import run_of_history

        run_of_history(table, task, png, as_json)
    else:
        from semaforo.cli.router_run import run_frontier

        run_frontier(table, file, png, as_json)


@router.command(epilog="Example: semaforo router tasks fleet.yaml -o tasks.model")
def tasks(
    fleet: Annotated[Path, typer.Argument(metavar="[FLEET]", help="The fleet file.")] = Path("fleet.yaml"),
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Where it goes.")] = Path(
        "tasks.model"
    ),
    rows: Annotated[int, typer.Option(help="Take so many examples of each task at most.", min=20)] = 2000,
    as_json: AsJson = False,
) -> None:
    """Learn to tell tasks apart, for requests that name `auto`, from the rows by which tasks are evaluated."""
    from semaforo.cli.router_tasks import run

    run(fleet, output, rows, as_json)


@router.command(epilog='Example: semaforo router explain routers/chat.router --prompt "How much is 3 + 4?"')
def explain(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The router.", show_default=False)],
    prompt: Annotated[str, typer.Option(help="What a request says.")] = "",
    task: Annotated[str, typer.Option(help="Its task; the first one of training where left out.")] = "",
    as_json: AsJson = False,
) -> None:
    """Say what a router has learned, and what it predicts for a request."""
    from semaforo.cli.router_run import run_explain

    run_explain(file, prompt, task, as_json)


@router.command("list", epilog="Example: semaforo router list --url http://127.0.0.1:8080")
def list_(url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Show the routers of a server: in service, tried, on the shelf, and what came of them."""
    from semaforo.cli.router_live import run_list

    run_list(url, key, as_json)


@router.command(epilog="Example: semaforo router candidate chat 4 --share 0.1 --promote auto")
def candidate(
    task: TaskArgument,
    name: Annotated[
        str,
        typer.Argument(
            metavar="ROUTER", help="A version, or a file seen from the fleet file.", show_default=False
        ),
    ],
    share: Annotated[
        float | None, typer.Option(help="Share of requests that it decides, up to 0.9.", min=0.0, max=1.0)
    ] = None,
    shadow: Annotated[
        bool | None, typer.Option("--shadow/--no-shadow", help="Whether both look at every request.")
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="Score that it may be behind and still count as not worse.")
    ] = None,
    promote: Annotated[
        str,
        typer.Option(help="auto: in service once it is shown to be good enough; by hand: when asked for."),
    ] = "",
    sha256: Annotated[str, typer.Option(metavar="DIGEST", help="Digest the file must have.")] = "",
    url: Url = DEFAULT_URL,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Try a router beside the one in service of a server, or change how it is tried."""
    from semaforo.cli.router_live import run_candidate

    change = {
        "candidate": name, "share": share, "shadow": shadow, "margin": margin, "promote": promote, "sha256": sha256,
    }  # fmt: skip
    run_candidate(task, change, url, key, as_json)


@router.command(epilog="Example: semaforo router promote chat")
def promote(
    task: TaskArgument, why: Why = "", url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False
) -> None:
    """Put the candidate of a task in service."""
    from semaforo.cli.router_live import run_promote

    run_promote(task, why, url, key, as_json)


@router.command(epilog="Example: semaforo router rollback chat")
def rollback(
    task: TaskArgument, why: Why = "", url: Url = DEFAULT_URL, key: ApiKey = "", as_json: AsJson = False
) -> None:
    """Drop the candidate of a task; without one, go back to the router before."""
    from semaforo.cli.router_live import run_roll_back

    run_roll_back(task, why, url, key, as_json)
