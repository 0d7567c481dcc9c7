"""A newcomer's path: the quickstart trains, serves, shows what was decided, and stops."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(180)
def test_the_quickstart_runs_to_its_table(tmp_path: Path) -> None:
    command = [
        sys.executable,
        ROOT / "examples" / "quickstart",
        "--once",
        "--http-port",
        "0",
        "--folder",
        tmp_path,
    ]
    ran = subprocess.run(
        [str(word) for word in command],
        capture_output=True, text=True, timeout=170, check=False, cwd=ROOT,
        env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    shown = ran.stdout
    assert "semaforo serves digits, tumour with 8 replicas" in shown
    for word in (
        "✗ digits-large/fp32  deadline: ",
        "✗ tumour-forest  cost: $",
        "✗ digits-linear      quality: ",
        "✗ tumour-forest  privacy: for public data, this is site",
        "503: no replica can finish",
        "422: no variant",
    ):
        assert word in shown
    assert "11 of 11 as expected" in shown
    assert "Traceback" not in ran.stderr
    check = subprocess.run(
        [sys.executable, "-m", "semaforo", "check", "fleet.yaml"],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert check.returncode == 0, check.stderr
    assert "fleet.yaml is good: 7 variants load" in check.stdout
    learn = subprocess.run(
        [sys.executable, ROOT / "examples" / "quickstart" / "learn.py", "--folder", tmp_path],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip
    assert learn.returncode == 0, learn.stdout + learn.stderr
    left, back = re.findall(r"within (\d+) requests of its", learn.stdout)
    assert int(left) <= 200
    assert int(back) <= 200
