"""The example of graphs trains, fits, asks, and is right about what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(120)
def test_the_example_runs_and_fusion_beats_its_parts(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "graphs"), "--folder", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    right = {
        name: float(share) for name, share in re.findall(r"^(\S+) +(0\.\d+) of \d+ right", ran.stdout, re.M)
    }
    assert right.keys() == {"small", "large", "sure", "four-eyes"}
    assert right["four-eyes"] > right["small"]
    assert right["sure"] > right["large"] - 0.01
    line = re.search(r"a line of (.*) is read as (.*)", ran.stdout)
    assert line is not None
    assert line[1] == line[2]
    assert "fuses by stack" in ran.stdout
