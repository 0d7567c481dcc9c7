"""Learned routing: metrics, words, trees, training, and the artefact."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest

from semaforo.cli.router_run import _known
from semaforo.errors import ArtefactError, InvalidRequest
from semaforo.features.signals import Signals
from semaforo.features.text import TEXT_NUMBERS, text_numbers, words_of
from semaforo.jobs.learn import levels
from semaforo.jobs.learn.crossval import out_of_fold, signals_of
from semaforo.jobs.learn.embedded import Told, train_embedded
from semaforo.jobs.learn.train import learnable, train
from semaforo.repository.examples import read_table
from semaforo.routing import metrics
from semaforo.routing.rollout import unfit
from semaforo.routing.router import Router
from semaforo.routing.scorer import Scorer
from semaforo.routing.table import Table
from semaforo.routing.trees import Forest
from semaforo.routing.words import bags, learned


def sums(rows: int, seed: int = 0, groups: int = 6) -> Table:
    """Two models: the weak one fails where a text speaks of `hard` things, or is long."""
    rng = np.random.default_rng(seed)
    names = [f"group{g}" for g in range(groups)]
    words = {g: [f"{g}word{k}" for k in range(30)] for g in names}
    prompts, group, scores = [], [], []
    for _ in range(rows):
        name = names[rng.integers(groups)]
        size = int(rng.integers(4, 40))
        hard = rng.random() < 0.4
        text = [str(w) for w in rng.choice(words[name], size)] + (["hard", "proof"] if hard else ["easy"])
        prompts.append(" ".join(text))
        group.append(name)
        weak = rng.random() < (0.9 - 0.6 * hard - 0.005 * size)
        scores.append((float(weak), float(rng.random() < 0.9)))
    values = np.array(scores)
    return Table(
        ("weak", "strong"),
        ("t",) * rows,
        tuple(prompts),
        values,
        np.full(values.shape, np.nan),
        groups=tuple(group),
    )


@pytest.fixture(scope="module")
def router() -> Router:
    return Router(train(sums(700)), 700, "2026-01-01", {"apgr": 0.8})


def test_apgr_is_a_half_for_no_order_and_one_and_a_half_at_best() -> None:
    gain = np.array([1.0, 0.0] * 500)
    assert metrics.apgr(gain, np.zeros(1000)) == pytest.approx(0.5, abs=0.002)
    assert metrics.apgr(gain, gain) == pytest.approx(0.75, abs=0.002)
    assert metrics.apgr(gain, -gain) == pytest.approx(0.25, abs=0.002)
    assert metrics.cpt(gain, gain, 0.8) == pytest.approx(0.4)
    assert metrics.cpt(gain, -gain, 0.8) == pytest.approx(0.9)
    with pytest.raises(ValueError, match="no gap to recover"):
        metrics.apgr(np.array([1.0, -1.0]), np.zeros(2))


def test_the_hull_never_falls_and_aiq_is_its_mean_height() -> None:
    costs, qualities = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.5, 0.4, 0.9, 0.8])
    x, y = metrics.hull(costs, qualities)
    assert x.tolist() == [1.0, 3.0]
    assert y.tolist() == [0.5, 0.9]
    assert metrics.aiq(costs, qualities) == pytest.approx((2 * 0.7 + 0.9) / 3)
    assert metrics.aiq(np.array([1.0]), np.array([0.3])) == 0.3


def test_calibration_error_is_the_gap_in_bins() -> None:
    rng = np.random.default_rng(0)
    predicted = rng.random(20_000)
    truth = (rng.random(20_000) < predicted).astype(float)
    assert metrics.calibration_error(predicted, truth) < 0.02
    assert metrics.calibration_error(np.clip(predicted + 0.2, 0, 1), truth) > 0.1


def test_words_are_weighted_by_how_rare_they_are() -> None:
    words = learned([words_of("the cat sat"), words_of("the dog sat"), words_of("the cat ran")], least=1)
    at, values, unknown = words.vector(words_of("the cat"))
    assert len(at) == 3
    assert np.isclose(values @ values, 1.0, atol=1e-5)
    assert unknown == 0.0
    assert words.vector(words_of("quite new words"))[2] == 1.0
    assert words.vector([])[2] == 1.0


def test_buckets_come_in_order_once_with_how_often() -> None:
    text = words_of("to be or not to be or to be quite sure")
    found, counts = bags(text, 1 << 17)
    assert (np.diff(found) > 0).all()
    assert len(found) == len(set(text)) + len(set(pairwise(text)))
    assert counts.sum() == 2 * len(text) - 1
    assert counts.max() == 3
    assert len(bags([], 1 << 17)[0]) == 0
    assert bags(["one"], 1 << 17)[1].tolist() == [1]


def test_a_text_is_counted_whatever_is_in_it() -> None:
    found = text_numbers("What is 3 + 4?\nA. seven\nB. not eight, Привет 日本")
    assert tuple(found) == TEXT_NUMBERS
    assert found["text.lines"] == 3
    assert found["text.questions"] == 1
    assert found["text.negations"] == 1
    assert found["text.beyond_latin"] > 0
    for text in ("", " ", "\ud800", "x" * 100_000, "\0"):
        assert all(np.isfinite(v) for v in text_numbers(text).values())


def test_exported_trees_say_what_scikit_learn_says() -> None:
    from sklearn.ensemble import HistGradientBoostingRegressor

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 6))
    rows[rng.random(rows.shape) < 0.1] = np.nan
    target = np.nan_to_num(rows[:, 0]) * 2 + (np.nan_to_num(rows[:, 1]) > 0)
    model = HistGradientBoostingRegressor(**levels.TREES).fit(rows, target)
    trees = levels.exported(model)
    assert np.allclose(trees.predict(rows)[:, 0], model.predict(rows))


def test_sums_of_trees_are_walked_together_and_small_trees_filled_up() -> None:
    from sklearn.ensemble import HistGradientBoostingRegressor

    rng = np.random.default_rng(1)
    rows = rng.normal(size=(200, 3))
    parts, wanted = [], []
    for leaves, target in ((8, np.sin(3 * rows[:, 0])), (2, rows[:, 1]), (3, np.ones(200))):
        model = HistGradientBoostingRegressor(max_iter=5, max_leaf_nodes=leaves).fit(rows, target)
        parts.append(levels.exported(model))
        wanted.append(model.predict(rows))
    forest = Forest(parts)
    assert np.allclose([forest.predict(row) for row in rows], np.array(wanted).T)
    many = HistGradientBoostingRegressor(max_iter=1, max_leaf_nodes=20, min_samples_leaf=2).fit(
        rows, rows[:, 0]
    )
    with pytest.raises(ValueError, match="leaves: 8 is the most"):
        Forest([levels.exported(many)])


def test_a_trained_router_beats_chance_and_survives_its_bytes(router: Router) -> None:
    fresh = sums(400, seed=9)
    again = Router.decode(router.encode())
    assert again.digest() == router.digest()
    assert again.tasks == ("t",)
    signals = [Signals(p) for p in fresh.prompts]
    scores, trust = Scorer(again.predictor).predict("t", signals)
    gain = fresh.scores[:, 1] - fresh.scores[:, 0]
    assert metrics.apgr(gain, scores[:, 1] - scores[:, 0]) > 0.62
    assert trust.mean() > 0.7
    assert metrics.calibration_error(scores[:, 0], fresh.scores[:, 0]) < 0.1
    one, _ = Scorer(again.predictor).predict("t", signals[:1])
    assert np.allclose(one[0], scores[0])


def test_out_of_its_domain_it_says_what_is_usual(router: Router) -> None:
    scorer = Scorer(router.predictor)
    strange = [Signals("совсем другие слова здесь"), Signals(""), Signals(numbers={"image.blur": 3.0})]
    scores, trust = scorer.predict("t", strange)
    usual = router.predictor.usual("t")
    assert trust[0] < 0.5
    assert np.abs(scores[0] - usual).max() < 0.25
    _, unknown = scorer.predict("another task", [Signals("group1word1 easy")])
    assert unknown[0] == 0.0


def test_scores_out_of_fold_are_of_rows_that_were_not_seen() -> None:
    table = sums(300)
    scores, _ = out_of_fold(table, folds=3)
    gain = table.scores[:, 1] - table.scores[:, 0]
    assert metrics.apgr(gain, scores[:, 1] - scores[:, 0]) > 0.55
    noise = Table(
        table.models,
        table.tasks,
        table.prompts,
        np.random.default_rng(1).permutation(table.scores),
        table.costs,
    )
    scores, _ = out_of_fold(noise, folds=3)
    gain = noise.scores[:, 1] - noise.scores[:, 0]
    assert abs(metrics.apgr(gain, scores[:, 1] - scores[:, 0]) - 0.5) < 0.12


def test_requests_without_a_score_tell_of_words() -> None:
    table = sums(300)
    asked = np.arange(300) < 60
    bare = msgspec.structs.replace(table, scores=np.where(asked[:, None], table.scores, np.nan))
    few, more = train(table.rows(np.flatnonzero(asked))), train(bare)
    assert few.words is not None
    assert more.words is not None
    assert len(more.words.idf) > len(few.words.idf)
    assert np.allclose(more.base, few.base)
    assert np.isfinite(Scorer(more).predict("t", [Signals(table.prompts[200])])[0]).all()
    with pytest.raises(InvalidRequest, match="29 requests"):
        train(
            msgspec.structs.replace(
                table, scores=np.where(np.arange(300)[:, None] < 29, table.scores, np.nan)
            )
        )


def meant(rows: int, seed: int = 0) -> Table:
    """Requests whose words say nothing, and whose embedding says whether the weak model can."""
    rng = np.random.default_rng(seed)
    hard = rng.random(rows) < 0.5
    embeddings = rng.normal(0.0, 0.4, (rows, 12)).astype(np.float32)
    embeddings[:, 0] += np.where(hard, 2.0, -2.0)
    embeddings[:10] = np.nan
    prompts = tuple(" ".join(map(str, rng.choice(WORDS, 6))) for _ in range(rows))
    scores = np.stack([~hard, np.ones(rows, bool)], axis=1).astype(float)
    return Table(
        ("weak", "strong"), ("t",) * rows, prompts, scores, np.full((rows, 2), np.nan), embeddings=embeddings,
        space="minilm/1",
    )  # fmt: skip


WORDS = [f"word{k}" for k in range(40)]


def test_what_an_embedding_tells_is_used_and_done_without() -> None:
    predictor = Router.decode(Router(train(meant(150)), 150).encode()).predictor
    level = predictor.embedded
    assert level is not None
    assert level.fits("minilm/1", np.zeros(12, np.float32))
    assert not level.fits("minilm/2", np.zeros(12, np.float32))
    assert not level.fits("minilm/1", np.zeros(13, np.float32))
    scorer, new = Scorer(predictor), meant(200, seed=1)
    known = np.arange(10, 200)
    gain = new.scores[known, 1] - new.scores[known, 0]
    told = scorer.predict("t", signals_of(new, known))[0]
    assert metrics.apgr(gain, told[:, 1] - told[:, 0]) > 0.73  # 0.75 is all there is to gain
    blind = signals_of(msgspec.structs.replace(new, embeddings=None), known)
    without = scorer.predict("t", blind)[0]
    assert abs(metrics.apgr(gain, without[:, 1] - without[:, 0]) - 0.5) < 0.12
    plain = Scorer(msgspec.structs.replace(predictor, embedded=None))
    assert np.array_equal(plain.predict("t", blind)[0], without)
    assert np.isfinite(scorer.predict("t", signals_of(new, np.arange(10)))[0]).all()


def test_embeddings_that_tell_nothing_are_given_no_weight() -> None:
    rng = np.random.default_rng(3)
    said = rng.normal(size=(400, 1))
    targets, noise = said + rng.normal(0.0, 0.5, (400, 1)), rng.normal(size=(400, 16)).astype(np.float32)
    every = np.arange(400)
    folds = [(np.setdiff1d(every, part), part) for part in np.array_split(every, 5)]
    level = train_embedded(noise, targets, Told(folds, said), None, "", 0)
    assert level is not None
    without, linear, near = level.inside[:, 0]
    assert without == pytest.approx(1.0, abs=0.1)
    assert linear < 0.3
    assert near < 0.3
    assert level.outside[:, 0].tolist() == [1.0, 0.0, 0.0]
    assert train_embedded(noise[:20], targets[:20], Told(folds, said[:20]), None, "", 0) is None


@pytest.mark.parametrize("seed", range(4))
def test_what_embeddings_tell_of_some_groups_counts_there_alone(seed: int) -> None:
    """They tell which group a request is of, and what models are worth in the next is drawn anew."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(6), 60)
    places = (rng.normal(size=(6, 16))[groups] + 0.3 * rng.normal(size=(360, 16))).astype(np.float32)
    targets = (rng.normal(size=6)[groups] + rng.normal(0, 0.5, 360))[:, None]
    said = 0.2 * targets + rng.normal(0, 0.3, (360, 1))
    every = np.arange(360)
    rows = [(np.setdiff1d(every, part), part) for part in np.array_split(rng.permutation(every), 5)]
    apart = [(np.flatnonzero(groups != g), np.flatnonzero(groups == g)) for g in range(6)]
    level = train_embedded(places, targets, Told(rows, said), Told(apart, said), "", 0)
    assert level is not None
    assert level.inside[2, 0] > 0.5
    assert level.outside[1:, 0].tolist() == [0.0, 0.0]


def test_models_that_were_not_asked_about_everything() -> None:
    table = sums(300)
    holes = table.scores.copy()
    holes[np.random.default_rng(0).random(300) < 0.5, 0] = np.nan
    holes[np.isnan(holes[:, 0]) & (np.random.default_rng(1).random(300) < 0.5), 1] = np.nan
    predictor = train(Table(table.models, table.tasks, table.prompts, holes, table.costs))
    scores, _ = Scorer(predictor).predict("t", [Signals(p) for p in table.prompts[:50]])
    assert np.isfinite(scores).all()


def test_features_alone_can_be_learned_from() -> None:
    rng = np.random.default_rng(0)
    blur = rng.random((400, 1))
    scores = np.hstack([(blur < rng.random((400, 1))), np.ones((400, 1))]).astype(float)
    table = Table(
        ("small", "large"),
        ("t",) * 400,
        ("",) * 400,
        scores,
        np.full((400, 2), np.nan),
        ("image.blur",),
        blur,
    )
    scorer = Scorer(train(table))
    (sharp, blurred), _ = scorer.predict("t", [Signals(numbers={"image.blur": b}) for b in (0.1, 0.9)])
    assert sharp[0] > blurred[0] + 0.3
    assert np.isfinite(scorer.predict("t", [Signals()])[0]).all()


@pytest.mark.parametrize("damage", [b"", b"nothing", b"semaforo router\n" + b"x" * 100])
def test_what_is_no_router_is_refused(damage: bytes, router: Router) -> None:
    with pytest.raises(ArtefactError):
        Router.decode(damage)
    whole = bytearray(router.encode())
    whole[-20] ^= 1
    with pytest.raises(ArtefactError, match="damaged: its digest"):
        Router.decode(bytes(whole))


def test_too_little_to_learn_from() -> None:
    with pytest.raises(InvalidRequest, match="10 requests are too few"):
        train(sums(10))


TABLE = "task,prompt,model,score,cost,feature.size\n"


def test_a_table_is_read_from_csv_and_parquet(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(TABLE + "a,one,x,1,0.5,3\na,one,y,0,,3\nb,two,x,0.25,0.1,\n")
    table = read_table(path)
    assert table.models == ("x", "y")
    assert table.tasks == ("a", "b")
    assert np.array_equal(table.scores, [[1.0, 0.0], [0.25, np.nan]], equal_nan=True)
    assert np.array_equal(table.costs, [[0.5, np.nan], [0.1, np.nan]], equal_nan=True)
    assert table.features == ("size",)
    from pyarrow import csv, parquet

    given = (("one", "[1, 0.5]"), ("two", ""))
    lines = [f'{prompt},{model},1,"{vector}"\n' for prompt, vector in given for model in "xy"]
    path.write_text("prompt,model,score,embedding\n" + "".join(lines))
    vectors = read_table(path).embeddings
    assert vectors is not None
    assert np.array_equal(vectors, [[1.0, 0.5], [np.nan, np.nan]], equal_nan=True)
    path.write_text(TABLE + "a,one,x,1,0.5,3\na,one,y,0,,3\nb,two,x,0.25,0.1,\n")
    parquet.write_table(csv.read_csv(path), tmp_path / "scores.parquet")
    again = read_table(tmp_path / "scores.parquet")
    assert np.array_equal(again.scores, table.scores, equal_nan=True)
    assert again.prompts == table.prompts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task,prompt,modell,score\n", "no column 'model'.*Did you mean 'modell'"),
        ("task,prompt,model,score\na,p,x,1\n", "scores of x alone"),
        (TABLE + "a,one,x,7,,\na,one,y,1,,\n", "row 1: score is 7; it takes 0 to 1"),
        (TABLE + "a,one,x,good,,\na,one,y,1,,\n", "row 1: score is 'good', which is no number"),
        (TABLE + "a,one,x,1,,\na,one,x,1,,\na,one,y,1,,\n", "row 2 is the second one of 'x'"),
        (TABLE + "a,one,,1,,\na,one,y,1,,\n", "row 1: model is empty"),
        (TABLE + "a,one,x\n", "line 2 has not as many fields"),
        ("prompt,model,score,embedding\na,x,1,[1]\nb,y,1,7\n", "row 2: embedding has not the 1 numbers"),
        ("prompt,model,score,embedding\na,x,1,[\nb,y,1,[1]\n", "row 1: embedding is no list of numbers"),
        ("model,score\nx,1\ny,1\n", "nothing tells requests apart"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(text)
    with pytest.raises(InvalidRequest, match=message):
        read_table(path)
    for name, content in (("none.csv", None), ("bad.parquet", b"PAR1 no"), ("bad.csv", b"\xff\xfe\x00")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidRequest):
            read_table(tmp_path / name)


def test_a_router_is_judged_by_requests_that_it_was_not_trained_on(router: Router) -> None:
    seen, other = sums(100), sums(40, seed=9)
    table = Table(
        seen.models, seen.tasks + other.tasks, seen.prompts + other.prompts,
        np.vstack([seen.scores, other.scores]), np.vstack([seen.costs, other.costs]),
    )  # fmt: skip
    marked = Router.decode(Router(router.predictor, 100, seen=seen.marks()).encode())
    assert marked.unseen(table).prompts == other.prompts
    assert marked.unseen(other) is other
    with pytest.raises(InvalidRequest, match="all of the 100 requests were in its training"):
        marked.unseen(seen)
    bare = Table(("a", "b"), ("t", "t"), ("", ""), np.array([[1.0, 0.0], [0.0, 0.0]]), np.zeros((2, 2)))
    assert len(set(bare.marks().tolist())) == 2


def test_what_is_learned_from_a_table_without_tasks_holds_for_every_task(tmp_path: Path) -> None:
    table = sums(200)
    lines = ["id,prompt,model,score"]
    for i, prompt in enumerate(table.prompts):
        lines += [f"{i},{prompt},{m},{s:g}" for m, s in zip(table.models, table.scores[i], strict=True)]
    (tmp_path / "scores.csv").write_text("\n".join(lines) + "\n")
    predictor = train(read_table(tmp_path / "scores.csv"))
    others = sums(100, seed=5).prompts
    hard = np.array(["hard" in prompt for prompt in others])
    scores, trust = Scorer(predictor).predict("chat", [Signals(prompt) for prompt in others])
    assert trust.min() > 0.5
    weak, strong = predictor.models.index("weak"), predictor.models.index("strong")
    gain = scores[:, strong] - scores[:, weak]
    assert gain[hard].mean() > gain[~hard].mean() + 0.02
    assert predictor.usual("chat")[[weak, strong]] == pytest.approx(table.scores.mean(axis=0), abs=0.01)


def test_a_group_without_values_adds_nothing_where_there_is_no_noise() -> None:
    values, of = np.array([0.5, 0.5, np.nan]), np.array([0, 0, 1])
    with np.errstate(all="raise"):
        assert levels.shrunk_means(values, of, np.array([0, 1])).tolist() == [pytest.approx(0.5), 0.0]


def test_too_few_requests_are_counted_as_they_were_given() -> None:
    scores = np.ones((31, 2))
    table = Table(("a", "b"), ("x",) * 31, ("word",) * 31, scores, np.full(scores.shape, np.nan))
    with pytest.raises(InvalidRequest, match=r"31 requests are too few .* in 5 folds: take 38 at least"):
        learnable(table, 5)
    assert learnable(table, 31) == (table, ())


def test_a_model_that_was_hardly_ever_asked_is_left_out_of_a_log() -> None:
    rng = np.random.default_rng(2)
    scores = np.full((80, 3), np.nan)
    scores[np.arange(80), rng.integers(2, size=80)] = rng.random(80)
    scores[0] = [np.nan, np.nan, 1.0]
    table = Table(("a", "b", "c"), ("x",) * 80, ("word",) * 80, scores, np.full(scores.shape, np.nan))
    found, few = learnable(table, 5)
    assert (found.models, few) == (("a", "b"), ("c",))
    assert np.isfinite(out_of_fold(found)[0]).all()
    with pytest.raises(InvalidRequest, match=r"b, c have fewer than 10 scores"):
        learnable(table.rows(np.flatnonzero(~(scores[:, 1] >= 0.0))), 5)


def test_a_router_speaks_of_the_variants_of_a_history_by_their_models() -> None:
    scores = np.tile([[1.0, 0.0]], (40, 1))
    router = Router(train(Table(("a", "b"), ("x",) * 40, ("word",) * 40, scores, scores * np.nan)), 40)
    logged = np.full((40, 3), np.nan)
    logged[np.arange(40), np.arange(40) % 3] = 1.0
    names = ("a/1/default", "b/2/int8", "other/1/default")
    log = Table(names, ("x",) * 40, ("word",) * 40, logged, logged * np.nan)
    known = _known(router, log)
    assert known.models == ("a", "b")
    assert len(known) == 27, "requests that other models answered are left out"
    assert unfit(router, ("a", "c"), "r") == ""
    verifier = msgspec.structs.replace(router, verifies="a")
    assert "is a verifier, which looks at answers of 'a'" in unfit(verifier, ("a", "c"), "r")
