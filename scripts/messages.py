"""Compiles ``inference.proto`` into ``inference_descriptor.py``; ``--check`` fails where they differ.

Needs grpcio-tools.
"""

from __future__ import annotations

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

WIRE = Path(__file__).parents[1] / "src/semaforo/wire"
HEAD = '''"""The descriptor of ``inference.proto``, written by ``scripts/messages.py``."""

DESCRIPTOR = (
'''
WIDTH = 24


def compiled() -> bytes:
    """Return the serialised descriptor of the one file, without its comments."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        includes = [f"-I{WIRE}", f"-I{files('grpc_tools') / '_proto'}"]
        if protoc.main(["protoc", *includes, f"--descriptor_set_out={out}", "inference.proto"]):
            raise SystemExit("inference.proto does not compile")
        data = out.read_bytes()
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    [file] = FileDescriptorSet.FromString(data).file
    return file.SerializeToString(deterministic=True)


def module() -> str:
    """Return the text of the module."""
    data = compiled()
    lines = [f'    b"{escaped(data[at : at + WIDTH])}"\n' for at in range(0, len(data), WIDTH)]
    return HEAD + "".join(lines) + ")\n"


def escaped(data: bytes) -> str:
    """Return bytes as they stand in a literal between double quotes."""
    return "".join(chr(b) if (chr(b).isalnum() and b < 128) or b in b"._" else f"\\x{b:02x}" for b in data)


def main() -> None:
    """Write the module, or check it."""
    path = WIRE / "inference_descriptor.py"
    if "--check" not in sys.argv:
        path.write_text(module())
    elif path.read_text() != module():
        raise SystemExit(f"{path.name} is out of date: run python scripts/messages.py")


if __name__ == "__main__":
    main()
