"""The quickstart: trains small models, writes a fleet file, serves it, and shows what is decided and why.

``make run`` runs it; ``python examples/quickstart --once`` stops after the table.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
from prepare import HERE, prepare, show
from rich.console import Console
from tour import tour


def main() -> int:
    """Run the quickstart."""
    parser = argparse.ArgumentParser(prog="make run", description=__doc__)
    parser.add_argument("--once", action="store_true", help="stop after the table")
    parser.add_argument("--http-port", type=int, default=8080, help="port to serve on (default: 8080)")
    parser.add_argument("--folder", type=Path, default=HERE / "fleet", help="where models and fleet file go")
    parser.add_argument("--again", action="store_true", help="train again though there are models")
    given = parser.parse_args()
    console = Console()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end as Ctrl-C does, the server with us
    quality = prepare(given.folder.resolve(), given.again, console)
    fleet = given.folder.resolve() / "fleet.yaml"
    command = [sys.executable, "-m", "semaforo", "serve", str(fleet), "--http-port", str(given.http_port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert server.stdout is not None
        announced = server.stdout.readline().strip()  # said once requests are taken
        if not announced:
            if given.http_port == 8080:
                console.print("Another port: make run ARGS='--http-port 8090'")
            return server.wait() or 1
        url = next(word for word in announced.split() if word.startswith("http"))
        console.print(f"{announced.split(' · ')[0]}\n")
        tour(url, fleet.parent, quality, console)
        if not given.once:
            hints(url, fleet, console)
            server.wait()
    except KeyboardInterrupt:
        console.print("stopping")
    except httpx.HTTPError as error:
        console.print(f"the server broke off: {error}")
        return 1
    finally:
        stop(server)
    return 0


NOUGHT = (
    "0,0,5,13,9,1,0,0, 0,0,13,15,10,15,5,0, 0,3,15,2,0,11,8,0, 0,4,12,0,0,8,8,0, "
    "0,5,8,0,0,9,8,0, 0,4,11,0,1,12,7,0, 0,2,14,5,10,12,0,0, 0,0,6,13,10,0,0,0"
)


def hints(url: str, fleet: Path, console: Console) -> None:
    """Say what to try next."""
    console.print("Try it from another terminal:", style="bold")
    console.print(
        f"""  curl {url}/v2/models/digits/infer -H 'semaforo-deadline-ms: 20' -d '{{"inputs": [{{"name": "image", \
"shape": [1, 64], "datatype": "FP32", "data": [{NOUGHT}]}}]}}'""",
        soft_wrap=True, markup=False, highlight=False,
    )  # fmt: skip
    semaforo = show(Path(sys.executable).with_name("semaforo"))
    console.print(f"  {semaforo} explain --url {url}  # why it went where it went", highlight=False)
    console.print(f"  {semaforo} check {show(fleet)}  # what each model is worth", highlight=False)
    console.print(
        f"  {semaforo} evaluate digits --fleet {show(fleet)}  # how good each one is", highlight=False
    )
    console.print(f"Serving at {url} until Ctrl-C", style="bold")


def stop(server: subprocess.Popen[str]) -> None:
    """Stop the server as Ctrl-C would, and by force if it takes longer than its grace."""
    if server.poll() is None:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


if __name__ == "__main__":
    sys.exit(main())
