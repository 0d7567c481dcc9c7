"""The folder of the quickstart: models that are trained where they are not there yet, and the fleet file."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from pathlib import Path

from rich.console import Console
from settings import FLEET

HERE = Path(__file__).parent


def prepare(folder: Path, again: bool, console: Console) -> dict[str, float]:
    """Train what is not there yet, write the fleet file, and return the measured qualities."""
    noted = folder / "measured.json"
    if again or not noted.exists() or not (folder / "digits-test.npz").exists():
        from train import train

        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / "models", ignore_errors=True)
        begun = time.perf_counter()
        quality = train(folder)
        shutil.copy(HERE / "rule.py", folder / "rule.py")
        noted.write_text(json.dumps(quality, indent=2) + "\n")
        console.print(f"Trained and measured {len(quality)} variants in {time.perf_counter() - begun:.0f} s")
    quality = json.loads(noted.read_text())
    text = FLEET.replace(
        "RULE_QUALITY", f"{quality['tumour-rule']:.4f}".ljust(35) + "# measured, as the others were"
    )
    (folder / "fleet.yaml").write_text(text)
    console.print(f"Fleet file: {show(folder / 'fleet.yaml')}")
    return quality


def show(path: Path) -> str:
    """Write a path as short as it can be from here."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
