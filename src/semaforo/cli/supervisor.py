"""Telling a service manager how the server is, where one listens: systemd's sd_notify(3)."""

from __future__ import annotations

import os
import socket


def tell_supervisor(state: str) -> None:
    """Send a state such as ``READY=1`` to ``$NOTIFY_SOCKET``; does nothing where there is none."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    # A name that begins with @ is in Linux' abstract namespace, which a zero byte stands for.
    address = f"\0{address[1:]}" if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto(state.encode(), address)
    except OSError:
        # A manager that does not listen is no reason not to serve.
        return
