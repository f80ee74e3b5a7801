"""Probabilities of labels are those of plain double precision, whatever the mode, scale and number of labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidx.encoders._prompts import Prompts
from vidx.search._tag_scores import BACKGROUND, MULTI, SINGLE, Scorer, Texts, probabilities_of
from vidx.search.labels import Label, LabelSet
from vidx.tests.made_store import unit

DIM = 24


@pytest.fixture(autouse=True)
def _warned() -> Iterator[None]:
    """Numbers that overflow, or are none, are errors in every test."""
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        yield


class Words:
    """An encoder that gives each text a vector of its own, and remembers what it was asked."""

    spec = SimpleNamespace(space=SimpleNamespace(dim=DIM))

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += texts
        return np.stack([self.of(text) for text in texts])

    def of(self, text: str) -> np.ndarray:
        seed = list(text.encode())
        return unit(np.random.default_rng(seed).standard_normal(DIM))


class Head:
    """A taught label: a direction and a logistic rule."""

    def __init__(self, label: str, seed: int) -> None:
        self.label = label
        self.weights = 4 * np.random.default_rng(seed).standard_normal(DIM)
        self.direction = unit(self.weights)

    def probabilities(self, vectors: np.ndarray) -> np.ndarray:
        return (1 / (1 + np.exp(-(vectors.astype(np.float64) @ self.weights - 1)))).astype(np.float32)


def labelled(*texts: tuple[str, ...], parents: Sequence[str | None] = ()) -> LabelSet:
    """A set of labels named by their first texts."""
    each = zip(texts, parents or [None] * len(texts), strict=True)
    return LabelSet("some", tuple(Label(own[0], own, parent) for own, parent in each))


def clips(n: int = 7, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((n, DIM)))


def expected(cosines: Any, apart: Any, scale: float, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """Every probability by itself, in double precision, from its definition."""
    told, none = np.zeros(np.shape(cosines)), np.zeros(len(cosines))
    for row, (own, others) in enumerate(zip(np.float64(cosines), np.float64(apart), strict=True)):
        for column, cosine in enumerate(own):
            rivals = [*others, cosine] if mode == MULTI else [*others, *own]
            told[row, column] = 1 / sum(np.exp(min(scale * (rival - cosine), 700)) for rival in rivals)
        if mode == SINGLE:
            none[row] = max(0.0, 1 - told[row].sum()) if len(others) else 0.0
    return told, none


@pytest.mark.parametrize("scale", [1.0, 20.0, 100.0, 1000.0])
@pytest.mark.parametrize(
    ("mode", "n_labels", "n_background"),
    [(mode, *n) for mode in (SINGLE, MULTI) for n in ((1, 1), (1, 29), (6, 3), (40, 29))]
    + [(SINGLE, 6, 0), (SINGLE, 1, 0)],
)
def test_probabilities_are_those_of_the_definition(scale: float, mode: str, n_labels: int, n_background: int) -> None:
    rng = np.random.default_rng(n_labels)
    cosines, apart = (rng.uniform(-1, 1, (20, n)).astype(np.float32) for n in (n_labels, n_background))
    before = cosines.copy(), apart.copy()
    told, none = probabilities_of(cosines, apart, np.float32(scale), mode)
    by_hand, none_by_hand = expected(cosines, apart, scale, mode)
    assert (told.dtype, told.shape, none.dtype, none.shape) == (np.float32, cosines.shape, np.float32, (20,))
    # Single precision tells cosines apart to 1e-7, and a scale enlarges that.
    np.testing.assert_allclose(told, by_hand, rtol=0, atol=1e-5 * max(1, scale / 100))
    np.testing.assert_allclose(none, none_by_hand, rtol=0, atol=1e-5 * max(1, scale / 100))
    np.testing.assert_array_equal(cosines, before[0])
    np.testing.assert_array_equal(apart, before[1])
    if mode == SINGLE:
        np.testing.assert_allclose(told.sum(axis=1) + none, 1, atol=1e-5)


@given(st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=6), st.sampled_from([SINGLE, MULTI]))
def test_probabilities_keep_the_order_of_cosines(own: list[float], mode: str) -> None:
    cosines = np.array([own], np.float32)
    [told], _ = probabilities_of(cosines, np.array([[0.2, -0.3]], np.float32), np.float32(100), mode)
    order = np.argsort(cosines[0], kind="stable")
    assert (np.diff(told[order]) >= 0).all()
    assert ((told >= 0) & (told <= 1)).all()


@pytest.mark.parametrize("mode", [SINGLE, MULTI])
def test_cosines_at_their_bounds_neither_overflow_nor_vanish(mode: str) -> None:
    cosines, apart = np.array([[1, -1, 0]], np.float32), np.array([[-1, -1]], np.float32)
    [told], _ = probabilities_of(cosines, apart, np.float32(100), mode)
    by_hand, _ = expected(cosines, apart, 100, mode)
    np.testing.assert_allclose(told, by_hand[0], atol=1e-6)
    [told], [none] = probabilities_of(-np.ones((1, 3), np.float32), np.ones((1, 2), np.float32), np.float32(100), mode)
    assert (told.tolist(), none) == ([0, 0, 0], 1 if mode == SINGLE else 0)


def test_five_thousand_labels_add_up_to_one() -> None:
    words, names = Words(), [(f"label {n}",) for n in range(5000)]
    texts = Texts.encoded(words, labelled(*names), (), Prompts(("{}",)))
    scored = Scorer(labelled(*names), texts, [], mode=SINGLE, scale=100).of_vectors(clips(30))
    assert scored.probabilities.shape == scored.cosines.shape == (30, 5000)
    np.testing.assert_allclose(scored.probabilities.astype(np.float64).sum(axis=1), 1, atol=1e-5)
    by_hand = 100 * clips(30).astype(np.float64) @ np.stack([words.of(name) for (name,) in names]).T.astype(np.float64)
    by_hand = np.exp(by_hand - by_hand.max(axis=1, keepdims=True))
    np.testing.assert_allclose(scored.probabilities, by_hand / by_hand.sum(axis=1, keepdims=True), atol=1e-5)


def test_the_vectors_of_prompts_and_synonyms_are_averaged_and_made_of_unit_norm_again() -> None:
    words, templates = Words(), ("a photo of {}.", "a video of {}.", "{}")
    names = labelled(("climb", "go up", "ascend"), ("sit",))
    texts = Texts.encoded(words, names, ("a wall", "the sky"), Prompts(templates))
    for label, found in zip(names.labels, texts.labels[0], strict=True):
        mean = np.mean(
            [words.of(form.replace("{}", text)).astype(np.float64) for text in label.texts for form in templates], 0
        )
        np.testing.assert_allclose(found, mean / np.sqrt((mean**2).sum()), atol=1e-6)
    assert texts.labels.shape == (1, 2, DIM)
    assert texts.labels.dtype == texts.background.dtype == np.float32
    np.testing.assert_array_equal(texts.background[0], [words.of("a wall"), words.of("the sky")])
    assert len(words.asked) == 4 * 3 + 2


@pytest.mark.parametrize("background", [(), ("a wall", "the sky")])
def test_of_actionclip_the_mean_over_prompts_of_softmaxes_counts(background: tuple[str, ...]) -> None:
    """models.md, ActionCLIP: probs = mean over prompts of softmax over classes of 100 x cosine, in that order."""
    words, templates = Words(), tuple(f"prompt {n} of {{}}" for n in range(16))
    names, vectors = labelled(("climb", "go up"), ("sit",), ("cook",)), clips()
    texts = Texts.encoded(words, names, background, Prompts(templates, "probabilities"))
    scored = Scorer(names, texts, [], mode=SINGLE, scale=100).of_vectors(vectors)
    each = []
    for form in templates:
        rows = []
        for label in names.labels:
            total = np.sum([words.of(form.replace("{}", text)).astype(np.float64) for text in label.texts], axis=0)
            rows.append(total / np.sqrt(total @ total))
        each.append(vectors.astype(np.float64) @ np.array(rows).T)
    apart = vectors.astype(np.float64) @ np.array([words.of(text) for text in background]).reshape(-1, DIM).T
    parts = [expected(cosines, apart, 100, SINGLE) for cosines in each]
    np.testing.assert_allclose(scored.probabilities, np.mean([told for told, _ in parts], axis=0), atol=1e-5)
    np.testing.assert_allclose(scored.background, np.mean([none for _, none in parts], axis=0), atol=1e-5)
    np.testing.assert_allclose(scored.cosines, np.mean(each, axis=0), atol=1e-6)
    other = expected(np.mean(each, axis=0), apart, 100, SINGLE)[0]
    assert np.abs(scored.probabilities - other).max() > 0.01, "the test can't tell the two means apart"


@pytest.mark.parametrize(("mode", "gather"), [(SINGLE, np.sum), (MULTI, np.max)])
def test_parents_gather_their_labels(mode: str, gather: Any) -> None:
    parents = ["moving", None, "resting", "moving", "resting", "moving"]
    names, vectors, words = labelled(*((text,) for text in "abcdef"), parents=parents), clips(50), Words()
    background = () if mode == SINGLE else BACKGROUND
    texts = Texts.encoded(words, names, background, Prompts(("{}",)))
    scorer = Scorer(names, texts, [], mode=mode, scale=20)
    scored = scorer.of_vectors(vectors)
    assert (scorer.names, scorer.n_told) == ((*"abcdef", "moving", "resting"), 6)
    cosines = vectors.astype(np.float64) @ np.stack([words.of(text) for text in "abcdef"]).T.astype(np.float64)
    apart = vectors.astype(np.float64) @ np.array([words.of(text) for text in background]).reshape(-1, DIM).T
    told, _ = expected(cosines, apart, 20, mode)
    for column, children in ((6, [0, 3, 5]), (7, [2, 4])):
        np.testing.assert_allclose(scored.probabilities[:, column], gather(told[:, children], axis=1), atol=1e-5)
        np.testing.assert_allclose(scored.cosines[:, column], cosines[:, children].max(axis=1), atol=1e-6)
    assert scored.probabilities.max() <= 1


@pytest.mark.parametrize("mode", [SINGLE, MULTI])
def test_taught_labels_stand_between_labels_and_parents_and_take_no_part_in_the_softmax(mode: str) -> None:
    names, vectors, heads = labelled(("a",), ("b",), parents=["p", None]), clips(), [Head("x", 1), Head("y", 2)]
    background = BACKGROUND if mode == MULTI else ()
    texts = Texts.encoded(Words(), names, background, Prompts(("{}",)))
    without = Scorer(names, texts, [], mode=mode, scale=100).of_vectors(vectors)
    scorer = Scorer(names, texts, heads, mode=mode, scale=100)
    scored = scorer.of_vectors(vectors)
    assert (scorer.names, scorer.n_texts, scorer.n_told) == (("a", "b", "x", "y", "p"), 2, 4)
    np.testing.assert_array_equal(scored.probabilities[:, [0, 1, 4]], without.probabilities)
    for column, head in ((2, heads[0]), (3, heads[1])):
        np.testing.assert_array_equal(scored.probabilities[:, column], head.probabilities(vectors))
        np.testing.assert_allclose(scored.cosines[:, column], vectors @ head.direction, atol=1e-6)


@pytest.mark.parametrize(("mode", "background"), [(SINGLE, ()), (SINGLE, BACKGROUND), (MULTI, BACKGROUND)])
@pytest.mark.parametrize("averaged", ["vectors", "probabilities"])
def test_taught_labels_need_no_others(mode: str, background: tuple[str, ...], averaged: str) -> None:
    head, none = Head("x", 1), LabelSet("taught", ())
    texts = Texts.encoded(Words(), none, background, Prompts(("{}", "a {}"), averaged))
    scored = Scorer(none, texts, [head], mode=mode, scale=1).of_vectors(clips())
    np.testing.assert_array_equal(scored.probabilities[:, 0], head.probabilities(clips()))
    assert scored.probabilities.shape == scored.cosines.shape == (7, 1)
    assert (scored.probabilities[:, 0] >= scored.background).all()


def test_calibration_is_of_labels_told_by_text_and_parents_gather_what_it_gives() -> None:
    class Halved:
        def apply(self, raw: np.ndarray) -> np.ndarray:
            assert raw.shape == (7, 3)
            return raw / 2

    names = labelled(("a",), ("b",), ("c",), parents=["p", "p", None])
    texts = Texts.encoded(Words(), names, (), Prompts(("{}",)))
    raw = Scorer(names, texts, [Head("x", 1)], mode=SINGLE, scale=100).of_vectors(clips())
    scored = Scorer(names, texts, [Head("x", 1)], mode=SINGLE, scale=100, calibration=Halved()).of_vectors(clips())
    np.testing.assert_allclose(scored.probabilities[:, :3], raw.probabilities[:, :3] / 2)
    np.testing.assert_array_equal(scored.probabilities[:, 3], raw.probabilities[:, 3])
    np.testing.assert_allclose(scored.probabilities[:, 4], raw.probabilities[:, 4] / 2, atol=1e-6)


def test_a_parent_is_never_more_than_certain() -> None:
    class Certain:
        def apply(self, raw: np.ndarray) -> np.ndarray:
            return np.full_like(raw, 0.9)

    names = labelled(("a",), ("b",), parents=["p", "p"])
    texts = Texts.encoded(Words(), names, (), Prompts(("{}",)))
    scored = Scorer(names, texts, [], mode=SINGLE, scale=1, calibration=Certain()).of_vectors(clips())
    assert (scored.probabilities[:, 2] == 1).all()


def test_cosines_had_from_frames_count_as_those_of_vectors_do() -> None:
    names, vectors = labelled(("a",), ("b",), parents=["p", None]), clips()
    texts = Texts.encoded(Words(), names, BACKGROUND, Prompts(("{}",)))
    scorer = Scorer(names, texts, [Head("x", 1)], mode=MULTI, scale=100)
    other = scorer.of_cosines(vectors @ texts.labels[0].T, vectors @ texts.background[0].T, vectors)
    np.testing.assert_allclose(other.probabilities, scorer.of_vectors(vectors).probabilities, atol=1e-6)
