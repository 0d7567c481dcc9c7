"""A decoder-only transformer of characters: rotary positions, attention to the last `WINDOW`, a KV cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WINDOW = 128
"""Characters that each one attends to, itself included; older ones need not be kept."""


@dataclass
class Cache:
    """What a layer keeps of the characters before: keys and values ``(batch, heads, at most WINDOW - 1, dim)``."""

    keys: Tensor
    values: Tensor


class Layer(nn.Module):
    """Attention and two dense layers, each behind a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.dense = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, turn: Tensor, mask: Tensor, cache: Cache | None) -> tuple[Tensor, Cache]:
        """Return the layer's output for ``(batch, length, width)``, and what it keeps for the next call."""
        batch, length, width = x.shape
        query, keys, values = (
            part.view(batch, length, self.heads, -1).transpose(1, 2)
            for part in self.qkv(self.before(x)).split(width, dim=-1)
        )
        query, keys = rotate(query, turn), rotate(keys, turn)
        if cache is not None:
            keys, values = torch.cat((cache.keys, keys), 2), torch.cat((cache.values, values), 2)
        found = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        x = x + self.out(found.transpose(1, 2).reshape(batch, length, width))
        kept = Cache(keys[:, :, 1 - WINDOW :], values[:, :, 1 - WINDOW :])
        return x + self.dense(self.between(x)), kept


class Transformer(nn.Module):
    """The model: characters in, for each one the logits of the next."""

    def __init__(self, characters: int, width: int = 96, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(characters, width)
        nn.init.normal_(self.embed.weight, std=0.05)  # it gives the logits too, and wider ones start off sure
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.norm = nn.RMSNorm(width)
        size = width // heads
        self.register_buffer("speeds", 1e4 ** (-torch.arange(0, size, 2) / size), persistent=False)

    def forward(
        self, ids: Tensor, caches: list[Cache] | None = None, begin: int = 0
    ) -> tuple[Tensor, list[Cache]]:
        """Return logits ``(batch, length, characters)`` and the caches for the next call.

        Args:
            ids: Characters ``(batch, length)``, the first of which stands at `begin`.
            caches: What the last call returned.
            begin: Characters before these.
        """
        before = caches[0].keys.shape[2] if caches else 0
        here = torch.arange(before, before + ids.shape[1], device=ids.device)
        back = here[:, None] - torch.arange(before + ids.shape[1], device=ids.device)
        mask = (back >= 0) & (back < WINDOW)
        turn = torch.outer(here + (begin - before), self.speeds)
        x = self.embed(ids)
        kept = []
        for number, layer in enumerate(self.layers):
            x, cache = layer(x, turn, mask, caches[number] if caches else None)
            kept.append(cache)
        return F.linear(self.norm(x), self.embed.weight), kept


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Turn each pair of ``(…, length, dim)`` by its angle, ``(length, dim / 2)`` (Su et al., 2021)."""
    one, two = x.chunk(2, dim=-1)
    cos, sin = turn.cos(), turn.sin()
    return torch.cat((one * cos - two * sin, one * sin + two * cos), dim=-1)
