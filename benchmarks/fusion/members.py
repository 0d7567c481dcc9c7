"""Members: models of unlike kinds that look at unlike features, trained here in seconds."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_TINY = 1e-6


def of_digits(images: Array, labels: Array) -> dict[str, Predict]:
    """Train four that each see a part of the image, a small one that sees all, and a generalist, `large`."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler
    from sklearn.svm import SVC

    def machine() -> Any:
        return CalibratedClassifierCV(SVC(C=3.0), ensemble=False)

    models = {
        name: make_pipeline(FunctionTransformer(look), StandardScaler(), machine())
        for name, look in VIEWS.items()
    }
    models["pixels"] = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=400))
    models["large"] = machine()
    return {name: _fitted(model, images, labels, 10) for name, model in models.items()}


def of_texts(texts: list[str], labels: Array, classes: int, quick: bool) -> dict[str, Predict]:
    """Train readers of utterances: of words, of letters, networks, and `large`, of all of it."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.preprocessing import Normalizer
    from sklearn.svm import LinearSVC

    def words(most: int) -> Any:
        return TfidfVectorizer(ngram_range=(1, most), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")

    def letters() -> Any:
        return TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, max_features=80_000)

    def network(width: int, rounds: int) -> Any:
        return MLPClassifier((width,), max_iter=rounds, random_state=0, alpha=1e-5)

    topics = make_pipeline(letters(), TruncatedSVD(50 if quick else 400, random_state=0), Normalizer())
    models = {
        "words": make_pipeline(words(1), LogisticRegression(C=20.0, max_iter=60)),
        "letters": make_pipeline(letters(), LinearSVC(C=0.5)),
        "network": make_pipeline(words(1), network(256, 8)),
        "topics": make_pipeline(topics, network(512, 25)),
        "large": make_pipeline(make_union(words(2), letters()), LinearSVC(C=1.0)),
    }
    return {name: _fitted(model, texts, labels, classes) for name, model in models.items()}


def _top(images: Array) -> Array:
    return images[:, :40]


def _bottom(images: Array) -> Array:
    return images[:, 24:]


def _left(images: Array) -> Array:
    return images.reshape(-1, 8, 8)[:, :, :4].reshape(len(images), -1)


def _right(images: Array) -> Array:
    return images.reshape(-1, 8, 8)[:, :, 4:].reshape(len(images), -1)


VIEWS: dict[str, Callable[[Array], Array]] = {"top": _top, "bottom": _bottom, "left": _left, "right": _right}


class Predict:
    """Rows → probabilities ``(rows, classes)``."""

    def __init__(self, model: Any, classes: int) -> None:
        self._model, self._classes = model, classes

    def __call__(self, rows: Any) -> Array:
        """Return probabilities; a support vector machine's margins are made to look like them."""
        found = np.full((len(rows), self._classes), _TINY)
        known = self._model.classes_.astype(int)
        if hasattr(self._model, "predict_proba"):
            found[:, known] = self._model.predict_proba(rows)
        else:
            margins = 4.0 * self._model.decision_function(rows)
            found[:, known] = np.exp(margins - margins.max(axis=1, keepdims=True))
        found = np.maximum(found, _TINY)
        return np.asarray(found / found.sum(axis=1, keepdims=True), np.float32)


def _fitted(model: Any, rows: Any, labels: Array, classes: int) -> Predict:
    with warnings.catch_warnings():
        # Networks stop after some rounds on purpose.
        warnings.simplefilter("ignore")
        model.fit(rows, labels)
    return Predict(model, classes)
