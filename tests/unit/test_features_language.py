"""In which script and language a text is, and whether it is code."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semaforo.features.language import LANGUAGE_NUMBERS, LANGUAGES, SCRIPTS, language_of
from semaforo.features.signals import Signals
from semaforo.features.text import TEXT_NUMBERS, text_numbers
from semaforo.jobs.learn.train import train
from semaforo.routing.scorer import Scorer
from semaforo.routing.table import Table
from semaforo.routing.trees import Trees

SAID = {
    "english": "How many of the people who live in this town have been to the sea, and what did they say?",
    "german": "Wie viele der Menschen, die in dieser Stadt wohnen, sind schon am Meer gewesen, und was war da?",
    "french": "Combien de gens qui habitent dans cette ville ont vu la mer, et qu'est-ce qu'elles en ont dit ?",
    "spanish": "¿Cuántas de las personas que viven en esta ciudad han visto el mar, y qué dijeron de él?",
    "italian": "Quante delle persone che abitano in questa città hanno visto il mare, e che cosa ne dicono?",
    "portuguese": "Quantas das pessoas que moram nesta cidade já viram o mar, e o que elas disseram?",
    "dutch": "Hoeveel van de mensen die in deze stad wonen zijn ooit bij de zee geweest, en wat zeiden ze?",
    "cyrillic": "Сколько людей в этом городе видели море?",
    "greek": "Πόσοι άνθρωποι σε αυτή την πόλη έχουν δει τη θάλασσα;",
    "semitic": "كم من الناس في هذه المدينة رأوا البحر؟",
    "indic": "इस शहर में कितने लोगों ने समुद्र देखा है?",
    "cjk": "この町の何人が海を見たことがありますか。",
}


@pytest.mark.parametrize("language", SAID)
def test_a_sentence_tells_its_language(language: str) -> None:
    assert language_of(text_numbers(SAID[language])) == language


@pytest.mark.parametrize(
    "text", ["", "Xyzzy 17", "3 + 4 = 7", "🙂🙂🙂", "Ile osób z tego miasta widziało morze?"]
)
def test_what_is_not_known_is_not_guessed(text: str) -> None:
    assert language_of(text_numbers(text)) == ""


def test_code_is_like_code_and_prose_is_not() -> None:
    code = "def f(x):\n    if x is None:\n        return [1]\n    for i in (1, 2):\n        y = {i}\n    return y"
    other = "static int f(const char *s) {\n\tint n = 0;\n\twhile (*s++) n += s[0] == 'a';\n\treturn n;\n}"
    for text in (code, other):
        assert text_numbers(text)["text.code"] >= 0.8
        assert text_numbers(text)["text.indented"] > 0.3
    for language in LANGUAGES:
        assert text_numbers(SAID[language])["text.code"] <= 0.1
        assert text_numbers(SAID[language])["text.indented"] == 0.0


@given(st.text(st.characters()))
def test_shares_are_shares(text: str) -> None:
    found = text_numbers(text)
    assert all(0.0 <= found[name] <= 1.0 for name in LANGUAGE_NUMBERS)
    assert sum(found[f"text.{script}"] for script in SCRIPTS) <= 1.0 + 1e-9


def test_a_router_of_before_reads_the_features_that_it_knows() -> None:
    rng = np.random.default_rng(0)
    prompts = tuple("word " * n for n in rng.integers(1, 40, 200))
    long = np.array([len(p) > 100 for p in prompts], float)
    scores = np.stack([1.0 - long, np.full(200, 0.6)], axis=1)
    predictor = train(Table(("a", "b"), ("t",) * 200, prompts, scores, np.full(scores.shape, np.nan)))
    assert predictor.looks == len(TEXT_NUMBERS)
    assert predictor.trees
    # The same trees, had they been trained before the last features were there.
    fewer = len(TEXT_NUMBERS) - len(LANGUAGE_NUMBERS)
    trees = tuple(_before(tree, fewer, predictor.looks) for tree in predictor.trees)
    before = Scorer(msgspec.structs.replace(predictor, looks=fewer, trees=trees))
    signals = [Signals(p) for p in prompts[:20]]
    assert np.allclose(before.predict("t", signals)[0], Scorer(predictor).predict("t", signals)[0])


def _before(tree: Trees, fewer: int, looks: int) -> Trees:
    """Return the same trees with what comes behind the features of texts moved to where it stood."""
    split = np.isfinite(tree.threshold)
    assert not (split & (tree.feature >= fewer) & (tree.feature < looks)).any()
    moved = np.where(split & (tree.feature >= looks), tree.feature - (looks - fewer), tree.feature)
    return msgspec.structs.replace(tree, feature=moved.astype(np.int32))
