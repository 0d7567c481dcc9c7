"""A worker ends with the gateway that started it, whatever happens to that."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies; elsewhere than on Linux the socket's end does.

    Args:
        parent: Process id of the gateway; if it is gone already, this process ends here.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have died before the kernel was asked. (Not getppid: a script may stand between the two.)
    try:
        os.kill(parent, 0)
    except ProcessLookupError:
        raise SystemExit("the gateway that started this worker is gone") from None
    except PermissionError:
        return
