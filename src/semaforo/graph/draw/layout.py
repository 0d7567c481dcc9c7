"""Where boxes go: in layers from top to bottom, so that links are short and seldom cross.

The steps are those of Sugiyama, Tagawa and Toda (1981): layers by the longest way, stand-ins where a link passes
through a layer, order by barycentres, then places as near to what they are linked with as the order allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import msgspec

from semaforo.graph.draw.picture import Link, Picture

_SWEEPS = 12


class Way(msgspec.Struct, frozen=True):
    """How a link goes: the middle of what it passes in each layer, from its source to its target."""

    link: Link
    first: int
    middles: tuple[float, ...]


class Layout(msgspec.Struct, frozen=True):
    """Where everything is.

    Attributes:
        layers: Names of the boxes of each layer, from left to right.
        middles: Box → its middle.
        ways: How links go.
        width: Of all.
    """

    layers: tuple[tuple[str, ...], ...]
    middles: dict[str, float]
    ways: tuple[Way, ...]
    width: float


def layout(what: Picture, widths: Mapping[str, float], gap: float, thin: float = 1.0) -> Layout:
    """Place the boxes of a picture.

    Args:
        what: The picture.
        widths: Box → its width.
        gap: Least distance between two boxes of a layer.
        thin: Width that a link takes where it passes through a layer.
    """
    depth = _depths(what)
    layers: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for box in what.boxes:
        layers[depth[box.name]].append(box.name)
    size = dict(widths)
    chains: list[list[str]] = []
    for number, link in enumerate(what.links):
        chain = [link.source]
        for level in range(depth[link.source] + 1, depth[link.target]):
            stand_in = f"\0{number}.{level}"
            layers[level].append(stand_in)
            size[stand_in] = thin
            chain.append(stand_in)
        chains.append([*chain, link.target])
    above: dict[str, list[str]] = {name: [] for layer in layers for name in layer}
    below: dict[str, list[str]] = {name: [] for name in above}
    for chain in chains:
        for upper, lower in pairwise(chain):
            below[upper].append(lower)
            above[lower].append(upper)
    _order(layers, above, below)
    at = _places(layers, above, below, size, gap)
    left = min(at[name] - size[name] / 2 for name in at)
    at = {name: place - left for name, place in at.items()}
    return Layout(
        tuple(tuple(name for name in layer if name in widths) for layer in layers),
        {name: at[name] for name in widths},
        tuple(
            Way(link, depth[link.source], tuple(at[name] for name in chain))
            for link, chain in zip(what.links, chains, strict=True)
        ),
        max(at[name] + size[name] / 2 for name in at),
    )


def _depths(what: Picture) -> dict[str, int]:
    found = {box.name: 0 for box in what.boxes}
    for box in what.boxes:
        sources = [found[link.source] + 1 for link in what.links if link.target == box.name]
        found[box.name] = max(sources, default=0)
    last = max(found.values())
    answer = what.boxes[-1].name
    # What starts a way of its own stands just above what needs it, not at the top.
    for box in reversed(what.boxes[1:]):
        ends = [found[link.target] - 1 for link in what.links if link.source == box.name]
        if not any(link.target == box.name for link in what.links) and ends:
            found[box.name] = max(0, min(ends))
    found[answer] = last
    return found


def _order(layers: list[list[str]], above: dict[str, list[str]], below: dict[str, list[str]]) -> None:
    best, fewest = [list(layer) for layer in layers], _crossings(layers, below)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        near = above if down else below
        numbers = range(1, len(layers)) if down else range(len(layers) - 2, -1, -1)
        for number in numbers:
            beside = layers[number - 1 if down else number + 1]
            rank = {name: place for place, name in enumerate(beside)}
            own = {name: place for place, name in enumerate(layers[number])}

            def middle(name: str, near: dict[str, list[str]] = near, rank: dict[str, int] = rank,
                       own: dict[str, int] = own) -> float:  # fmt: skip
                linked = [rank[other] for other in near[name] if other in rank]
                return sum(linked) / len(linked) if linked else own[name]

            layers[number].sort(key=middle)
        if (count := _crossings(layers, below)) < fewest:
            best, fewest = [list(layer) for layer in layers], count
    layers[:] = best


def _crossings(layers: list[list[str]], below: dict[str, list[str]]) -> int:
    total = 0
    for upper, lower in pairwise(layers):
        rank = {name: place for place, name in enumerate(lower)}
        ends = [rank[other] for name in upper for other in sorted(below[name], key=rank.__getitem__)]
        total += sum(a > b for i, a in enumerate(ends) for b in ends[i + 1 :])
    return total


def _places(
    layers: list[list[str]],
    above: dict[str, list[str]],
    below: dict[str, list[str]],
    size: dict[str, float],
    gap: float,
) -> dict[str, float]:
    at: dict[str, float] = {}
    for layer in layers:
        left = -(sum(size[name] for name in layer) + gap * (len(layer) - 1)) / 2
        for name in layer:
            at[name] = left + size[name] / 2
            left += size[name] + gap
    for sweep in range(2 * _SWEEPS):
        near = (above, below, {name: above[name] + below[name] for name in at})[sweep % 3]
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            wanted = [
                sum(at[other] for other in near[name]) / len(near[name]) if near[name] else at[name]
                for name in layer
            ]
            # Packed from the left and from the right, both keep the order and the gaps; so does their mean.
            from_left, from_right = list(wanted), list(wanted)
            for i in range(1, len(layer)):
                apart = (size[layer[i - 1]] + size[layer[i]]) / 2 + gap
                from_left[i] = max(wanted[i], from_left[i - 1] + apart)
            for i in range(len(layer) - 2, -1, -1):
                apart = (size[layer[i]] + size[layer[i + 1]]) / 2 + gap
                from_right[i] = min(wanted[i], from_right[i + 1] - apart)
            for name, left, right in zip(layer, from_left, from_right, strict=True):
                at[name] = (left + right) / 2
    return at
