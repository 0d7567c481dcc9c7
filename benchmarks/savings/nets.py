"""Networks for images and sounds, trained here and written as ONNX: a linear one, a narrow one and a wide one.

Each takes raw input and gives a label and probabilities. What a sound is looked at through (a short-time spectrum
in mel bands) is part of the network.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.fusion.data import Array
from benchmarks.savings.data import RATE, Part

WINDOW, HOP, MELS = 128, 64, 24
_SEGMENTS = 4
_BATCH = 32
_OPSET = 17


class Pixels(nn.Module):
    """Images ``(n, side, side)`` → ``(n, 1, side, side)``."""

    def forward(self, image: Tensor) -> Tensor:
        """Look."""
        return image.unsqueeze(1) - 0.3


class Spectrum(nn.Module):
    """Sounds ``(n, samples)`` → logarithms of mel bands ``(n, 1, bands, frames)``."""

    def __init__(self) -> None:
        super().__init__()
        turns = 2 * np.pi * np.outer(np.arange(WINDOW // 2 + 1), np.arange(WINDOW)) / WINDOW
        both = np.concatenate([np.cos(turns), np.sin(turns)]) * np.hanning(WINDOW)
        self.register_buffer("waves", torch.tensor(both[:, None, :], dtype=torch.float32))
        self.register_buffer("bands", torch.tensor(_mels(), dtype=torch.float32))

    def forward(self, sound: Tensor) -> Tensor:
        """Look."""
        both = torch.nn.functional.conv1d(sound.unsqueeze(1), self.waves, stride=HOP)
        half = WINDOW // 2 + 1
        power = both[:, :half] ** 2 + both[:, half:] ** 2
        bands = torch.log(torch.matmul(self.bands, power) + 1e-2)
        return (bands.unsqueeze(1) - 2.0) / 2.0


def _mels() -> Array:
    """Return triangles ``(bands, frequencies)``, evenly spaced in mel."""
    mel = 2595.0 * np.log10(1.0 + np.linspace(0.0, RATE / 2, WINDOW // 2 + 1) / 700.0)
    edges = np.linspace(mel[1], mel[-1], MELS + 2)
    up = (mel - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - mel) / (edges[2:] - edges[1:-1])[:, None]
    return np.clip(np.minimum(up, down), 0.0, None)


class Net(nn.Module):
    """What is looked at, a network on it, and its answer: a label and probabilities.

    Attributes:
        shifts: Answers are means over copies that are shifted by so much, up, down, left and right (0 = no copies).
    """

    def __init__(self, look: nn.Module, body: nn.Module) -> None:
        super().__init__()
        self.look, self.body = look, body
        self.shifts = 0

    def logits(self, given: Tensor) -> Tensor:
        """Return what training needs."""
        found: Tensor = self.body(self.look(given))
        return found

    def forward(self, given: Tensor) -> tuple[Tensor, Tensor]:
        """Answer."""
        seen = self.look(given)
        found = torch.softmax(self.body(seen), dim=1)
        if self.shifts:
            steps = range(-self.shifts, self.shifts + 1)
            moved = [torch.roll(seen, (up, left), (2, 3)) for up in steps for left in steps]
            each = torch.softmax(self.body(torch.cat(moved)), dim=1)
            found = each.reshape(len(moved), -1, each.shape[1]).mean(dim=0)
        return found.argmax(dim=1), found


def linear(look: nn.Module, classes: int) -> Net:
    """Return a linear net on means: over a grid of 8 × 8 of an image, over 4 stretches of time of a sound."""
    pool = nn.AvgPool2d((1, 9)) if isinstance(look, Spectrum) else nn.AvgPool2d(4)
    return Net(look, nn.Sequential(pool, nn.Flatten(), nn.LazyLinear(classes)))


def deep(look: nn.Module, width: int, classes: int) -> Net:
    """Return a convolutional net; what it costs grows with the square of its width."""

    def block(before: int, after: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]

    layers = [
        *block(1, width), *block(width, width), nn.MaxPool2d(2),
        *block(width, 2 * width), *block(2 * width, 2 * width), nn.MaxPool2d(2),
        nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.LazyLinear(classes),
    ]  # fmt: skip
    return Net(look, nn.Sequential(*layers))


def trained(make: Callable[[], Net], part: Part, rounds: int, rate: float) -> Net:
    """Train a net by AdamW with a rate that rises and falls once (Smith, 2018)."""
    torch.manual_seed(0)
    net = make()
    rows, truth = torch.from_numpy(part.rows), torch.from_numpy(part.truth)
    with torch.no_grad():
        # Shapes of the last layer follow from the data.
        net.eval()(rows[:2])
    steps = rounds * -(-len(part) // _BATCH)
    optimiser = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    net.train()
    for _ in range(rounds):
        for chosen in torch.randperm(len(part)).split(_BATCH):
            loss = nn.functional.cross_entropy(net.logits(rows[chosen]), truth[chosen], label_smoothing=0.02)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return net.eval()


def write(net: Net, part: Part, field: str, path: Path) -> None:
    """Write a net as ONNX, for any number of rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    open_rows = {name: {0: "rows"} for name in (field, "label", "probabilities")}
    with warnings.catch_warnings():
        # The exporter by tracing is the one that needs nothing beside PyTorch.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, (torch.from_numpy(part.rows[:2]),), str(path), input_names=[field],
            output_names=["label", "probabilities"], dynamic_axes=open_rows, dynamo=False, opset_version=_OPSET,
        )  # fmt: skip
