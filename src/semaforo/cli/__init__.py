"""The command line.

Exit codes: 0 = done; 1 = it failed, was refused, or a replay differs, and one line on stderr says why;
2 = the command was not written as it takes it; 130 = stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import sys

from semaforo.cli.app import app
from semaforo.errors import SemaforoError

__all__ = ["app", "main"]


def main() -> None:
    """Run a command, with errors as plain lines instead of tracebacks."""
    try:
        app(prog_name="semaforo")
    except SemaforoError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has gone: nothing is left to say, not even at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
