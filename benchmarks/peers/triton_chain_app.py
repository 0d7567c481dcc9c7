"""Triton's ensemble: five models of its Python back end, one after the other, from a model repository.

The server and the back end are those that nvidia-pytriton brings; the models run onnxruntime in this environment.
"""

from __future__ import annotations

import os
import shutil
import site
import sys
from pathlib import Path

import pytriton

STEPS = 5
WIDTH = 64

MODEL = """\
import sys

sys.path[:0] = PATHS
import triton_python_backend_utils as pb_utils

from benchmarks.peers.model import Model


class TritonPythonModel:
    def initialize(self, args):
        self.model = Model()

    def execute(self, requests):
        answers = []
        for request in requests:
            rows = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", self.model.run(rows))]))
        return answers
"""
STEP = """\
name: "{name}"
backend: "python"
max_batch_size: 32
input [{{name: "x", data_type: TYPE_FP32, dims: [{width}]}}]
output [{{name: "y", data_type: TYPE_FP32, dims: [{width}]}}]
instance_group [{{kind: KIND_CPU, count: 1}}]
"""


def repository(folder: Path, paths: list[str]) -> Path:
    """Write the models and their ensemble."""
    steps = []
    for number in range(STEPS):
        home = folder / f"step{number}"
        (home / "1").mkdir(parents=True)
        # The back end starts models with a path of its own.
        (home / "1" / "model.py").write_text(MODEL.replace("PATHS", repr(paths)))
        (home / "config.pbtxt").write_text(STEP.format(name=home.name, width=WIDTH))
        given = f"h{number}" if number else "x"
        gives = f"h{number + 1}" if number + 1 < STEPS else "y"
        steps.append(
            f'{{model_name: "{home.name}", model_version: -1, input_map {{key: "x", value: "{given}"}}, '
            f'output_map {{key: "y", value: "{gives}"}}}}'
        )
    (folder / "chain" / "1").mkdir(parents=True)
    (folder / "chain" / "config.pbtxt").write_text(
        f'name: "chain"\nplatform: "ensemble"\nmax_batch_size: 32\n'
        f'input [{{name: "x", data_type: TYPE_FP32, dims: [{WIDTH}]}}]\n'
        f'output [{{name: "y", data_type: TYPE_FP32, dims: [{WIDTH}]}}]\n'
        f"ensemble_scheduling {{ step [{', '.join(steps)}] }}\n"
    )
    return folder


def back_ends(folder: Path) -> Path:
    """Put the back end and the stub of this interpreter where the server looks for both."""
    home = Path(pytriton.__file__).parent / "tritonserver"
    shutil.copytree(home / "backends", folder)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(home / "python_backend_stubs" / version / "triton_python_backend_stub", folder / "python")
    return folder


if __name__ == "__main__":
    package = Path(pytriton.__file__).parent
    scratch = Path(os.environ["SCRATCH"])
    paths = [os.environ["PYTHONPATH"], *site.getsitepackages()]
    libraries = [str(package.parent / "nvidia_pytriton.libs"), os.environ.get("LD_LIBRARY_PATH", "")]
    command = [
        str(package / "tritonserver" / "bin" / "tritonserver"),
        f"--model-repository={repository(scratch / 'models', paths)}",
        f"--backend-directory={back_ends(scratch / 'backends')}",
        "--http-address=127.0.0.1", f"--http-port={os.environ['PORT']}",
        "--grpc-address=127.0.0.1", f"--grpc-port={os.environ['GRPC_PORT']}",
        "--metrics-address=127.0.0.1", f"--metrics-port={os.environ['METRICS_PORT']}",
        "--log-verbose=0",
    ]  # fmt: skip
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(path for path in libraries if path),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    os.execve(command[0], command, environment)
