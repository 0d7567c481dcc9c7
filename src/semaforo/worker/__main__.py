"""``python -m semaforo.worker``: started by a gateway, never by hand."""

from __future__ import annotations

import sys

from semaforo.worker.process import main

if __name__ == "__main__":
    sys.exit(main())
