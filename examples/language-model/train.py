"""Trains the language model on text at hand and writes ``weights.safetensors``: a few seconds on two cores.

``python train.py`` reads this project's own documentation, ``python train.py BOOK.txt …`` whatever it is given.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from safetensors.torch import save_file
from torch.nn import functional as F
from transformer import WINDOW, Transformer

HERE = Path(__file__).parent
BATCH, LENGTH = 16, WINDOW


def main() -> int:
    """Train once; what is there is kept unless ``--again`` is said."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "texts", type=Path, nargs="*", help="files to learn from (default: the documentation)"
    )
    parser.add_argument("--steps", type=int, default=300, help="batches to learn from (default: 300)")
    parser.add_argument("--into", type=Path, default=HERE / "weights.safetensors", help="file to write")
    parser.add_argument("--again", action="store_true", help="train though there are weights")
    given = parser.parse_args()
    if given.into.exists() and not given.again:
        print(f"{given.into.name} is there: --again trains once more")
        return 0
    try:
        text = "\n\n".join(path.read_text() for path in given.texts or documentation())
    except (OSError, UnicodeDecodeError) as error:
        print(f"train.py: {error}: name text files to learn from", file=sys.stderr)
        return 1
    if len(text) <= LENGTH:
        print(f"train.py: more than {LENGTH} characters are needed to learn from", file=sys.stderr)
        return 1
    try:
        loss = train(text, given.steps, given.into)
    except KeyboardInterrupt:
        print("stopped, and nothing written", file=sys.stderr)
        return 130
    print(f"Learned from {len(text):,} characters, to {loss:.2f} nats each: {given.into.name}")
    return 0


def documentation() -> list[Path]:
    """Return the pages of this project that are written by hand or from the code."""
    root = HERE.parents[1]
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def train(text: str, steps: int, into: Path) -> float:
    """Train on a text, write the weights and the characters that they know, and return the last loss in nats."""
    torch.manual_seed(0)
    characters = sorted(set(text) | {"\n", " "})
    places = {character: place for place, character in enumerate(characters)}
    ids = torch.tensor([places[character] for character in text])
    model = Transformer(len(characters))
    optimiser = torch.optim.AdamW(model.parameters(), lr=6e-3, betas=(0.9, 0.95), weight_decay=0.05)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=steps, pct_start=0.1)
    columns = (TextColumn("learning, {task.fields[loss]:.2f} nats"), BarColumn(40), TimeElapsedColumn())
    mean = torch.tensor(0.0)
    with Progress(*columns) as progress:
        bar = progress.add_task("", total=steps, loss=0.0)
        for step in range(steps):
            begins = torch.randint(len(ids) - LENGTH, (BATCH, 1))
            rows = ids[begins + torch.arange(LENGTH + 1)]
            logits, _ = model(rows[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            rate.step()
            mean = loss.detach() if step == 0 else 0.9 * mean + 0.1 * loss.detach()
            progress.update(bar, advance=1, loss=mean.item())
    save_file(model.state_dict(), into, {"characters": json.dumps(characters)})
    return mean.item()


if __name__ == "__main__":
    sys.exit(main())
