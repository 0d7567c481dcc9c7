"""Writes MLServer's two settings files into ``SCRATCH`` and becomes its command.

In one process (``parallel_workers`` 0) and without adaptive batching: both are slower for models this small.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

if __name__ == "__main__":
    folder = Path(os.environ["SCRATCH"])
    settings = {
        "host": "127.0.0.1",
        "http_port": int(os.environ["PORT"]),
        "grpc_port": int(os.environ["GRPC_PORT"]),
        "metrics_port": int(os.environ["METRICS_PORT"]),
        "parallel_workers": 0,
        "debug": False,
    }
    model = {"name": "net", "implementation": "benchmarks.peers.mlserver_runtime.Net"}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    command = str(Path(sys.executable).with_name("mlserver"))
    os.execv(command, [command, "start", str(folder)])
