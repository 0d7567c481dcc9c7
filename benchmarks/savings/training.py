"""Models of each task, trained here: small ones, the largest, and between them; each as an entry of a fleet file.

Every task has a model that is quick to ask and one that is dear and at least as good. Which is which is known by
`Models.quick` and `Models.largest`; what the router does with them is measured.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import msgspec
import numpy as np

from benchmarks.fusion.data import Array
from benchmarks.savings import encoder, nets
from benchmarks.savings.data import Data, Part
from benchmarks.savings.readers import Tokens, terms

_READERS = "benchmarks.savings.readers"


class Models(msgspec.Struct, frozen=True):
    """The models of a task.

    Attributes:
        entries: Name → what a fleet file says of it, beside its task.
        quick, dear: Members of its cascade.
        largest: The one that answers alone on the other side.
        told: What they are, for the report.
    """

    entries: dict[str, dict[str, Any]]
    quick: str
    dear: str
    largest: str
    told: str


def trained(data: Data, folder: Path, quick: bool) -> Models:
    """Train all models of a task and write them into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if data.name == "kind":
        return _tables(data, folder)
    make = {"intent": _texts, "digit": _images, "word": _sounds}[data.name]
    return make(data, folder, quick)


# --- texts ----------------------------------------------------------------------------------------------


def _texts(data: Data, folder: Path, quick: bool) -> Models:
    words(data.train, data.classes, folder / "words.npz")
    small = {"python": f"{_READERS}:Words", "isolation": "inline", "options": _args(folder / "words.npz")}
    weights = None if quick else encoder.fetched()
    if weights is None:
        several(data.train, folder / "readers.joblib")
        large = {"python": f"{_READERS}:Readers", "options": _args(folder / "readers.joblib")}
        told = "linear on TF-IDF of words and pairs; the largest a mean of it and two networks"
        entries = {"intent-words": small, "intent-large": large}
        return Models(entries, "intent-words", "intent-large", "intent-large", told)
    _sentences(data.train, weights, folder)
    large, short = (
        {"python": f"{_READERS}:Sentences", "options": _args(folder / name)}
        for name in ("sentences.onnx", "sentences-int8.onnx")
    )
    told = (
        "linear on TF-IDF of words and pairs; the largest all-MiniLM-L6-v2 with a linear layer, and its int8"
    )
    entries = {"intent-words": small, "intent-large": large, "intent-int8": short}
    return Models(entries, "intent-words", "intent-int8", "intent-large", told)


def words(part: Part, classes: int, path: Path) -> None:
    """Train a linear reader of words and pairs, and write what `readers.Words` reads."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.svm import LinearSVC

    vectors = TfidfVectorizer(analyzer=terms, sublinear_tf=True, min_df=2)
    rows = vectors.fit_transform(part.rows)
    model = LinearSVC(C=1.0).fit(rows, part.truth)
    weights, bias = _all_classes(model, classes)
    names = np.array(vectors.get_feature_names_out().tolist())
    # Margins are about one apart; as logits they should tell sure from unsure.
    np.savez(
        path, terms=names, weights=4.0 * weights.T, bias=4.0 * bias, rarity=vectors.idf_.astype(np.float32)
    )


def _all_classes(model: Any, classes: int) -> tuple[Array, Array]:
    weights = np.zeros((classes, model.coef_.shape[1]), np.float32)
    bias = np.full(classes, -10.0, np.float32)
    weights[model.classes_], bias[model.classes_] = model.coef_, model.intercept_
    return weights, bias


def several(part: Part, path: Path) -> None:
    """Train several readers whose mean is better than each, and write what `readers.Readers` reads."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline

    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, max_features=40_000)
    members = [
        make_pipeline(
            TfidfVectorizer(analyzer=terms, sublinear_tf=True), LogisticRegression(C=20.0, max_iter=60)
        ),
        make_pipeline(letters, MLPClassifier((128,), max_iter=6, random_state=0)),
        make_pipeline(TfidfVectorizer(sublinear_tf=True), MLPClassifier((256,), max_iter=8, random_state=0)),
    ]
    with warnings.catch_warnings():
        # Networks stop after some rounds on purpose.
        warnings.simplefilter("ignore")
        fitted = [member.fit(part.rows, part.truth) for member in members]
    joblib.dump([member.predict_proba for member in fitted], path)


def _sentences(part: Part, weights: Path, folder: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from sklearn.linear_model import LogisticRegression

    shutil.copy(weights / "vocab.txt", folder)
    network = encoder.read(weights)
    seen = encoder.encoded(network, Tokens(folder / "vocab.txt"), part.rows)
    head = LogisticRegression(C=30.0, max_iter=100).fit(seen, part.truth)
    whole = folder / "sentences.onnx"
    encoder.write(network, head.coef_, head.intercept_, whole)
    quantize_dynamic(str(whole), str(folder / "sentences-int8.onnx"), weight_type=QuantType.QInt8)


def _args(path: Path) -> dict[str, Any]:
    return {"args": {"path": str(path)}}


# --- images and sounds ------------------------------------------------------------------------------------


def _images(data: Data, folder: Path, quick: bool) -> Models:
    return _nets(data, folder, nets.Pixels, quick)


def _sounds(data: Data, folder: Path, quick: bool) -> Models:
    return _nets(data, folder, nets.Spectrum, quick)


def _nets(data: Data, folder: Path, look: Callable[[], Any], quick: bool) -> Models:
    kinds = {
        "linear": (partial(_linear, look, data.classes), 10 if quick else 30, 0.05),
        "narrow": (partial(_deep, look, 6 if quick else 8, data.classes), 5 if quick else 12, 0.01),
        "large": (partial(_deep, look, 12 if quick else 32, data.classes), 5, 0.01 if quick else 0.004),
    }
    entries: dict[str, dict[str, Any]] = {}
    for name, (make, rounds, rate) in kinds.items():
        net = nets.trained(make, data.train, rounds, rate)
        if quick and name == "large":
            # What is trained in seconds is not dear: here it looks at many copies of its input.
            net.shifts = 2
        path = folder / f"{data.name}-{name}.onnx"
        nets.write(net, data.train, data.field, path)
        entries[f"{data.name}-{name}"] = {"source": str(path)}
    quickest, largest = f"{data.name}-narrow", f"{data.name}-large"
    return Models(
        entries, quickest, largest, largest,
        "linear on means, a narrow convolutional net, and a wide one" + (" on 25 copies" if quick else ""),
    )  # fmt: skip


def _linear(look: Callable[[], Any], classes: int) -> nets.Net:
    return nets.linear(look(), classes)


def _deep(look: Callable[[], Any], width: int, classes: int) -> nets.Net:
    return nets.deep(look(), width, classes)


# --- tables -------------------------------------------------------------------------------------------------


def _tables(data: Data, folder: Path) -> Models:
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    small = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(max_iter=200))
    entries = {}
    found = {
        "logistic": small,
        "boosted": HistGradientBoostingClassifier(max_iter=40, random_state=0),
        "large": make_pipeline(SimpleImputer(), RandomForestClassifier(200, random_state=0)),
    }
    for name, model in found.items():
        path = folder / f"kind-{name}.joblib"
        joblib.dump(model.fit(data.train.rows, data.train.truth), path)
        entries[f"kind-{name}"] = {"source": str(path), "options": {"allow_pickle": True}}
    return Models(
        entries, "kind-boosted", "kind-large", "kind-large", "logistic regression, boosted trees, a forest"
    )
