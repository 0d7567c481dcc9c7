"""What the savings benchmark counts, and how its encoder reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from benchmarks.savings.readers import Tokens, terms
from benchmarks.savings.results import Book, Counted, Round, Said, difference, resampled
from benchmarks.savings.stream import Came


def test_texts_become_the_longest_known_pieces(tmp_path: Path) -> None:
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "play", "##ing", "##er", "cafe", "?"])
    )
    tokens = Tokens(vocabulary)
    assert tokens.row("Playing café?") == [2, 4, 5, 7, 8, 3]
    assert tokens.row("player zzz") == [2, 4, 6, 1, 3]
    assert len(tokens.row("play " * 100)) == 32
    ids, mask = tokens.batch(["play", "playing"])
    assert ids.tolist() == [[2, 4, 3, 0], [2, 4, 5, 3]]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert terms("Stop it now") == ["stop", "it", "now", "stop it", "it now"]


def test_what_a_cascade_costs_counts_once() -> None:
    counted = {
        "digit-narrow": Counted("digit", 2, 3, 0.5),
        "digit-large": Counted("digit", 0, 1, 2.0),
        "digit-sure": Counted("digit", 1, 1, 2.2),
    }
    came = Came([0.1, float("nan"), 0.3], [1, -1, 4], ["digit-sure", "", "digit-narrow"], 1.0)
    book = Book(Round([0, 0, 0], [1, 2, 3], {"side": Said(came, 0.5, 100.0, counted)}), "side")
    assert book.dollars == 2.5
    assert book.right.tolist() == [1.0, 0.0, 0.0]
    assert book.answered.tolist() == [True, False, True]


def test_only_what_was_counted_in_between_counts() -> None:
    before = {"m": Counted("t", 5, 6, 1.0)}
    assert difference({"m": Counted("t", 7, 9, 1.5)}, before) == {"m": Counted("t", 2, 3, 0.5)}


def test_an_interval_holds_its_statistic() -> None:
    values = np.arange(100.0)
    value, low, high = resampled(100, lambda at: float(values[at].mean()))
    assert value == 49.5
    assert low < value < high
