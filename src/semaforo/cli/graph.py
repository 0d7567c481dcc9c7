"""``semaforo graph``: commands about graphs, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

graph = typer.Typer(
    name="graph", help="Draw and fit graphs of models.", no_args_is_help=True, rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
FleetOption = Annotated[Path, typer.Option(help="The fleet file.")]


@graph.command(
    epilog="Examples: semaforo graph fit digits-fused --data rows.parquet · "
    "semaforo graph fit digits-sure --data rows.csv --give-up 0.02 --most 0.25"
)
def fit(
    name: Annotated[str, typer.Argument(metavar="GRAPH", help="The graph.", show_default=False)],
    fleet: FleetOption = Path("fleet.yaml"),
    data: Annotated[
        Path | None,
        typer.Option(help="Labelled rows that no member was trained on (.parquet, .csv, .jsonl, .npz)."),
    ] = None,
    metric: Annotated[
        str, typer.Option(help="Of a chat's answers: exact, contains, or final (they come to the same).")
    ] = "",
    step: Annotated[str, typer.Option(help="This step only: a fusion, or the dear step of a cascade.")] = "",
    rows: Annotated[int, typer.Option(help="Take so many rows from the beginning; 0 = all.", min=0)] = 0,
    give_up: Annotated[
        float, typer.Option(help="Quality a cascade may lose against its dear step.", min=0.0, max=1.0)
    ] = 0.01,
    most: Annotated[
        float, typer.Option(help="Largest share of rows a cascade may ask of it.", min=0.0, max=1.0)
    ] = 1.0,
    confidence: Annotated[
        float,
        typer.Option(help="With which it loses no more; 0.5 = what is seen is believed.", min=0.5, max=0.999),
    ] = 0.9,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Train verifiers anew; else those alone that have no file yet.")
    ] = False,
    privacy: Annotated[str, typer.Option(help="Class of the data: public, internal or site.")] = "public",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what was found, write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Fit a graph on labelled rows: weights and combiners of fusions, verifiers and thresholds of cascades."""
    from semaforo.cli.graph_fit import Fitting, run
    from semaforo.jobs.cascades import Terms

    terms = Terms(give_up, most, confidence)
    run(Fitting(name, step, data, rows, metric, terms, retrain, privacy), fleet, dry_run, as_json)


@graph.command(epilog="Examples: semaforo graph show · semaforo graph show digits-sure --svg digits-sure.svg")
def show(
    name: Annotated[
        str, typer.Argument(metavar="[GRAPH]", help="The graph; all of them where left out.")
    ] = "",
    fleet: FleetOption = Path("fleet.yaml"),
    to: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Write an SVG file.")] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Draw the graphs that it asks, too.")] = False,
) -> None:
    """Draw graphs: steps, what goes between them, and the longest way where times were measured."""
    from semaforo.cli.graph_show import run

    run(name, fleet, to, deep)
