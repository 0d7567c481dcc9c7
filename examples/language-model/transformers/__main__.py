"""A small Llama behind `transformers serve`, with Semaforo before it.

``python examples/language-model/transformers`` runs it; ``--keep`` serves on. It makes an environment under
``.venvs/transformers`` (a minute or more, once), writes a model, serves both, asks for a stream and for eight
answers at once, loads it with ``semaforo bench``, and says what came.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
HOME = ROOT / ".venvs" / "transformers"
PACKAGES = (("torch==2.13.0",), ("transformers[serving]==5.23.0",))
FLEET = """\
tasks:
  chat: {{kind: chat}}
models:
  llama:
    task: chat
    url: http://127.0.0.1:{port}/v1
    sees: [public, internal, site]           # it runs here
    options: {{model: ./llama, slots: 4, check: false}}   # it lists only what it has downloaded
"""


def main() -> int:
    """Make what is missing, serve, and ask."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", action="store_true", help="serve on until Ctrl-C")
    parser.add_argument("--http-port", type=int, default=8080, help="port of Semaforo (default: 8080)")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    python = HOME / "bin" / "python"
    try:
        install(python)
        with served(python) as port, before(port, given.http_port) as url:
            ask(url)
            if given.keep:
                print(f"Serving at {url} until Ctrl-C", flush=True)
                signal.pause()
    except KeyboardInterrupt:
        print("stopping")
    except (httpx.HTTPError, subprocess.CalledProcessError, RuntimeError) as error:
        print(f"it did not work: {error}", file=sys.stderr)
        return 1
    return 0


def install(python: Path) -> None:
    """Make the environment, unless it is there and whole."""
    if not python.exists():
        print(f"making {HOME.relative_to(ROOT)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(HOME)], check=True)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--python",
        str(python),
        "install",
        "-q",
    ]
    if not (HOME / ".installed").exists():
        for package in PACKAGES:
            print(f"installing {package[0]}", flush=True)
            subprocess.run([*pip, *package], check=True)
        (HOME / ".installed").touch()
    if not (HOME / "llama" / "model.safetensors").exists():
        texts = [str(ROOT / "README.md"), *map(str, sorted((ROOT / "docs").rglob("*.md")))]
        subprocess.run([str(python), str(HERE / "make_model.py"), str(HOME / "llama"), *texts], check=True)


@contextlib.contextmanager
def served(python: Path) -> Iterator[int]:
    """Run `transformers serve` on a free port until the block ends."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    serve = [str(python.with_name("transformers")), "serve", "./llama", "--host", "127.0.0.1"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [*serve, "--port", str(port), "--device", "cpu"]
    print(f"what it logs is in {(HOME / 'serve.log').relative_to(ROOT)}", flush=True)
    with (
        (HOME / "serve.log").open("wb") as log,
        running(command, cwd=HOME, env=environment, stdout=log, stderr=log) as process,
    ):
        await_answer(f"http://127.0.0.1:{port}/health", process)
        yield port


@contextlib.contextmanager
def before(port: int, http_port: int) -> Iterator[str]:
    """Run Semaforo before it until the block ends."""
    fleet = HOME / "fleet.yaml"
    fleet.write_text(FLEET.format(port=port))
    serve = [sys.executable, "-m", "semaforo", "serve", str(fleet), "--http-port", str(http_port)]
    with running(serve, stdout=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{http_port}"
        await_answer(f"{url}/v2/health/ready", process)
        yield url


@contextlib.contextmanager
def running(command: list[str], **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process until the block ends, and end it as Ctrl-C does."""
    process = subprocess.Popen(command, start_new_session=True, **more)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def await_answer(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server answers.

    Raises:
        RuntimeError: It ended, or took more than two minutes.
    """
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=5).is_success:
                return
        time.sleep(0.2)
    raise RuntimeError(f"nothing answers at {url}")


def ask(url: str) -> None:
    """Ask in several ways and say what came."""
    begun = time.perf_counter()
    body: dict[str, Any] = {
        "model": "llama",
        "messages": [{"role": "user", "content": "The core decides "}],
        "max_tokens": 40,
        "temperature": 0,
    }
    at: list[float] = []
    with httpx.stream(
        "POST", f"{url}/v1/chat/completions", json={**body, "stream": True}, timeout=60
    ) as stream:
        for line in stream.iter_lines():
            if '"content":' in line:
                at.append(time.perf_counter() - begun)
        stream.raise_for_status()
    print(
        f"streamed: {len(at)} deltas, the first after {at[0] * 1e3:.0f} ms, the last after {at[-1] * 1e3:.0f} ms"
    )

    def one(_: int) -> dict[str, Any]:
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    with ThreadPoolExecutor() as threads:
        answers = list(threads.map(one, range(8)))
    texts = {answer["choices"][0]["message"]["content"] for answer in answers}
    print(f"eight at once: {len(texts)} text, {answers[0]['usage']}: {next(iter(texts))!r}")
    bench = [sys.executable, "-m", "semaforo", "bench", url, "--chat", "--task", "chat", "--stream"]
    subprocess.run([*bench, "--concurrency", "8", "--duration", "5s", "--max-tokens", "20"], check=True)


if __name__ == "__main__":
    sys.exit(main())
