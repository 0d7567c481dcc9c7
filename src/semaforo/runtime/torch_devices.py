"""Devices as torch knows them, and the way of tensors to one and back.

Rules this module keeps:

1. A device that was asked for and is not there is an error that lists those that are; nothing falls back.
2. To a CUDA device tensors travel from pinned memory, without blocking; what comes back is waited for once.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from semaforo.entities import devices_of
from semaforo.errors import RuntimeLoadError, nearest

_KINDS = ("cpu", "cuda", "rocm", "mps", "xpu")
_NUMBERED = frozenset({"cuda", "rocm", "xpu"})


def present() -> list[str]:
    """Return the devices of this machine that this torch can use."""
    found = ["cpu"]
    if torch.cuda.is_available():
        kind = "rocm" if torch.version.hip else "cuda"
        found += [f"{kind}:{number}" for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    if torch.xpu.is_available():
        found += [f"xpu:{number}" for number in range(torch.xpu.device_count())]
    return found


def torch_devices(device: str) -> tuple[torch.device, ...]:
    """Return the devices of a group, as torch names them.

    Raises:
        RuntimeLoadError: One is not there, or is no device at all.
    """
    return tuple(_one(name) for name in devices_of(device))


def _one(name: str) -> torch.device:
    kind, colon, number = name.partition(":")
    if kind not in _KINDS:
        raise RuntimeLoadError(
            f"device '{name}': unknown kind.{nearest(kind, _KINDS)} Known: {', '.join(_KINDS)}"
        )
    if colon and not (kind in _NUMBERED and number.isdecimal()):
        raise RuntimeLoadError(f"device '{name}': write cpu, cuda:0, rocm:0, xpu:0 or mps")
    there = present()
    whole = f"{kind}:{int(number or 0)}" if kind in _NUMBERED else kind
    if whole not in there:
        raise RuntimeLoadError(
            f"device '{name}' was asked for, and this torch {torch.__version__} has {', '.join(there)}: "
            "name one of these, or install the build of torch and the driver for it"
        )
    return torch.device(whole.replace("rocm", "cuda"))


def upload(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor of the host on a device."""
    if device.type == "cpu":
        return tensor
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def download(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors on the host, from wherever each of them is."""
    found: dict[str, torch.Tensor] = {}
    streams: set[torch.device] = set()
    for name, tensor in tensors.items():
        if tensor.device.type == "cuda":
            host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            found[name] = host.copy_(tensor, non_blocking=True)
            streams.add(tensor.device)
        else:
            found[name] = tensor.cpu()
    for device in streams:
        torch.cuda.current_stream(device).synchronize()
    return found


def empty_caches(devices: tuple[torch.device, ...]) -> None:
    """Give back what torch keeps of the devices' memory for later."""
    for kind in {device.type for device in devices} - {"cpu"}:
        getattr(torch, kind).empty_cache()
