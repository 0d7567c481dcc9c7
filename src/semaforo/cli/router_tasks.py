"""``semaforo router tasks``: what tells tasks apart, from the rows by which they are evaluated."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from semaforo.build import blueprint
from semaforo.cli.needs import needs_sklearn
from semaforo.cli.output import show_json, write_file
from semaforo.errors import InvalidRequest
from semaforo.features.extract import chat_signals, tensor_signals
from semaforo.features.signals import Signals
from semaforo.jobs.exam import Exam, read_exam


def run(fleet: Path, output: Path, rows: int, as_json: bool) -> None:
    """Train, write, and say how well tasks are told apart.

    Raises:
        InvalidRequest: Fewer than two tasks have rows, or scikit-learn is not installed.
    """
    needs_sklearn()
    from semaforo.jobs.learn.tasks import train_tasks

    plan = blueprint(fleet, noted=False, fitted=False)
    examples: dict[str, list[Signals]] = {}
    without: list[str] = []
    for name, stated in plan.file.settings.tasks.items():
        if not stated.evaluate:
            without.append(name)
            continue
        exam = read_exam(plan.catalog.tasks[name], plan.file.folder / stated.evaluate, rows=rows)
        examples[name] = signals_of(exam)
    if len(examples) < 2:
        raise InvalidRequest(
            "two tasks at least need `evaluate`, rows that show what is asked of them; "
            f"without: {', '.join(without)}"
        )
    model = train_tasks(examples)
    write_file(output, model.encode(), folders=True)
    if as_json:
        told = {"file": str(output), "tasks": list(model.tasks), "without": without, "figures": model.figures}
        show_json(told)
        return
    out = Console(highlight=False)
    out.print(f"tells {', '.join(model.tasks)} apart; out of fold:")
    figures = model.figures
    sure = f"{figures['accuracy_accepted']:.1%} of the {figures['accepted']:.1%} that are sure enough"
    out.print(f"  {figures['accuracy']:.1%} right, {sure}")
    if without:
        out.print(f"  {', '.join(without)}: no rows to learn from; told by their inputs alone")
    out.print(f"{output} · name it as `auto: {output.name}` in the fleet file", markup=False)


def signals_of(exam: Exam) -> list[Signals]:
    """Return what the requests of an exam look like."""
    if exam.chats:
        return [chat_signals({"messages": messages}) for messages in exam.chats]
    return [
        tensor_signals({name: array[row : row + 1] for name, array in exam.inputs.items()})
        for row in range(exam.rows)
    ]
