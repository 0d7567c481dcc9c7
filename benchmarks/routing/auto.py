"""Which task is asked for: five of texts, two of images, two of tables, two of sound, and what is none of them.

Tasks of one modality take tensors of one form, so that nothing but content tells them apart. Texts are the domains
of CLINC150; a domain that no task stands for, its questions out of scope, and pictures of another kind are unseen.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

from benchmarks.report import Report, share_interval, table
from benchmarks.routing import data
from semaforo.errors import InvalidRequest
from semaforo.features.extract import tensor_signals
from semaforo.features.signals import Signals
from semaforo.jobs.learn.tasks import train_tasks
from semaforo.routing.tasks import infer

DOMAINS = ("banking", "travel", "kitchen_and_dining", "work", "meta")
UNSEEN_DOMAIN = "auto_and_commute"


def measure(report: Report, quick: bool) -> None:
    """Train on some requests, and infer the task of others."""
    most = 120 if quick else 500
    seen, unseen = examples(most)
    rng = np.random.default_rng(0)
    train: dict[str, list[Signals]] = {}
    test: list[tuple[str, Signals]] = []
    for task, signals in seen.items():
        order = rng.permutation(len(signals))
        half = len(order) * 2 // 3
        train[task] = [signals[i] for i in order[:half]]
        test += [(task, signals[i]) for i in order[half:]]
    report.progress(f"auto: {len(seen)} tasks")
    model = train_tasks(train)
    forms = {kind: [t for t in seen if t.startswith(kind)] for kind in ("text", "image", "table", "sound")}

    def asked(task: str, signals: Signals) -> str:
        try:
            return infer(model, forms[task.split("-")[0]], signals).task
        except InvalidRequest:
            return ""

    said = [(task, asked(task, signals)) for task, signals in test]
    answered = [(task, found) for task, found in said if found]
    report.add(
        "auto_accuracy",
        share_interval(sum(t == f for t, f in answered), len(answered)),
        aim=0.95,
        better="more",
    )
    report.add("auto_abstains_seen", share_interval(len(said) - len(answered), len(said)))
    none = [asked(task, signals) for task, signals in unseen]
    report.add("auto_abstains_unseen", share_interval(none.count(""), len(none)), better="more")
    shown = table(
        f"auto: {len(seen)} tasks in 4 modalities", "task", "requests", "right", "wrong", "not guessed"
    )
    for task in seen:
        mine = [found for name, found in said if name == task]
        shown.add_row(task, *_shares(mine, task))
    kinds = sorted({task for task, _ in unseen})
    for kind in kinds:
        mine = [found for (task, _), found in zip(unseen, none, strict=True) if task == kind]
        shown.add_row(f"{kind}, unseen", *_shares(mine, "none"))
    report.tables.append(shown)


def _shares(found: list[str], task: str) -> list[str]:
    n = len(found)
    right, none = found.count(task), found.count("")
    return [str(n), f"{right / n:.1%}", f"{(n - right - none) / n:.1%}", f"{none / n:.1%}"]


def examples(most: int) -> tuple[dict[str, list[Signals]], list[tuple[str, Signals]]]:
    """Return requests of tasks that are there, and of what is none of them."""
    seen: dict[str, list[Signals]] = {}
    unseen: list[tuple[str, Signals]] = []
    for name, texts in _texts(most).items():
        found = [tensor_signals({"text": np.array([t.encode()], object)}) for t in texts]
        if name.startswith("unseen"):
            unseen += [("text", s) for s in found]
        else:
            seen[f"text-{name}"] = found
    rng = np.random.default_rng(1)
    for name, draw in _drawn().items():
        found = [tensor_signals({name.split("-")[0]: draw(rng)[None, :]}) for _ in range(most)]
        if name.endswith("unseen"):
            unseen += [(name.split("-")[0], s) for s in found]
        else:
            seen[name] = found
    return seen, unseen


def _texts(most: int) -> dict[str, list[str]]:
    place = data.folder()
    if place is None:
        words = {
            "sums": "add plus minus number total", "weather": "rain sun wind cloud storm",
            "food": "bread soup salt oven plate", "unseen": "guitar drum song choir note",
        }  # fmt: skip
        rng = np.random.default_rng(2)
        return {k: [" ".join(rng.choice(w.split(), 4)) for _ in range(most)] for k, w in words.items()}
    folder = place.parent / "intent"
    rows = json.loads((folder / "data_full.json").read_text())
    domains = json.loads((folder / "domains.json").read_text())
    of = {intent: domain for domain, intents in domains.items() for intent in intents}
    found: dict[str, list[str]] = {}
    for text, intent in rows["train"]:
        found.setdefault(of.get(intent, ""), []).append(text)
    rng = np.random.default_rng(3)

    def some(texts: list[str]) -> list[str]:
        return [texts[i] for i in rng.permutation(len(texts))[:most]]

    texts = {domain: some(found[domain]) for domain in DOMAINS}
    texts["unseen-domain"] = some(found[UNSEEN_DOMAIN])
    texts["unseen-scope"] = some([text for text, _ in rows["oos_test"]])
    return texts


def _drawn() -> dict[str, Callable[[np.random.Generator], np.ndarray]]:
    from sklearn.datasets import load_digits, load_wine

    digits, wine = load_digits().data.astype(np.float32), load_wine().data.astype(np.float32)
    time = np.arange(800, dtype=np.float32) / 8000

    def digit(rng: np.random.Generator) -> np.ndarray:
        return digits[rng.integers(len(digits))]

    def texture(rng: np.random.Generator) -> np.ndarray:
        waves = np.sin(np.arange(8)[:, None] * rng.uniform(0.5, 3) + np.arange(8) * rng.uniform(0.5, 3))
        return (8 + 8 * waves).astype(np.float32).ravel()

    def noise(rng: np.random.Generator) -> np.ndarray:
        return (rng.normal(100, 40, 64)).astype(np.float32)

    def wines(rng: np.random.Generator) -> np.ndarray:
        return wine[rng.integers(len(wine))]

    def prices(rng: np.random.Generator) -> np.ndarray:
        return np.exp(rng.normal(1.0, 0.4, 13)).astype(np.float32)

    def tone(rng: np.random.Generator) -> np.ndarray:
        return np.sin(2 * np.pi * rng.uniform(200, 900) * time).astype(np.float32) + rng.normal(0, 0.02, 800)

    def speechlike(rng: np.random.Generator) -> np.ndarray:
        bursts = np.repeat(rng.random(8) < 0.6, 100) * np.sin(2 * np.pi * rng.uniform(80, 200) * time)
        return (bursts + rng.normal(0, 0.1, 800)).astype(np.float32)

    return {
        "image-digits": digit, "image-textures": texture, "image-unseen": noise,
        "table-wines": wines, "table-prices": prices, "sound-tones": tone, "sound-bursts": speechlike,
    }  # fmt: skip
