"""Serving a model that is awaited: batches and streams share the main thread's event loop."""

from __future__ import annotations

import asyncio
import socket

from semaforo.runtime.host import Hosted
from semaforo.runtime.serve import CANCELLED, Concurrent
from semaforo.wire.messages import Limits, Message, Run, RunChat, Stop
from semaforo.wire.payload import Chat
from semaforo.worker.batches import FrameOutbox
from semaforo.worker.control import Control, Progress
from semaforo.worker.link import LoopLink

_GRACE_S = 5.0


async def serve_streams(
    sock: socket.socket, hosted: Hosted, control: Control, progress: Progress, stall_s: float
) -> None:
    """Run batches and streams until the gateway says stop or goes away."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()

    def on_message(message: Message) -> None:
        if isinstance(message, Stop):
            over.set()
        elif isinstance(message, (Run, RunChat)):
            if control.take_cancelled(message.batch):
                outbox.failed(message.batch, CANCELLED)
            else:
                work = message.blocks if isinstance(message, Run) else Chat(message.body)
                concurrent.run(message.batch, work)

    link = LoopLink(on_message, lambda _: over.set())
    outbox = FrameOutbox(link, progress)
    concurrent = Concurrent(hosted, outbox, stall_s=stall_s, on_begin=progress.begin)
    if hasattr(hosted.model, "on_limits"):
        hosted.model.on_limits = lambda said: link.send(Limits(said))
    control.on_cancel = lambda batch: _swallow_closed(loop, concurrent, batch)
    sock.setblocking(False)
    await loop.create_unix_connection(lambda: link, sock=sock)
    await over.wait()
    await concurrent.close(_GRACE_S)
    link.close()


def _swallow_closed(loop: asyncio.AbstractEventLoop, concurrent: Concurrent, batch: int) -> None:
    try:
        loop.call_soon_threadsafe(concurrent.cancel, batch)
    except RuntimeError:
        # The loop has closed: nothing is left to cancel.
        return
