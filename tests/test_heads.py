"""Taught labels on disk: they come back as they were, one file each, and what was altered is not taken."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vidx.errors import InputError, StoreDamaged, StoreError
from vidx.schema.heads import Head, read_head, taught, write_head
from vidx.schema.store import Store

SPACE = "toy-01234567"
finite = st.floats(-1e6, 1e6, width=32)


def head(label: str = "a goal", space: str = SPACE, **changed: Any) -> Head:
    weights = np.array([3, 0, -4], np.float32)
    return replace(Head(label, space, "logistic", weights, 0.5, 0.7, n_positive=3, n_negative=30, seed=0), **changed)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    label=st.text(min_size=1, max_size=300),
    weights=arrays(np.float32, st.integers(1, 40), elements=finite).filter(np.any),
    bias=st.floats(-1e9, 1e9),
    threshold=st.floats(0, 1),
)
def test_a_head_comes_back_as_it_was(
    store: Store, label: str, weights: np.ndarray, bias: float, threshold: float
) -> None:
    written = head(label, weights=weights, bias=bias, threshold=threshold)
    path = write_head(store, written)
    read = read_head(store, SPACE, label)
    assert read.weights.dtype == np.float32
    assert read.weights.tobytes() == weights.tobytes()
    assert [getattr(read, name) for name in ("label", "space", "bias", "threshold", "n_positive", "n_negative")] == [
        *(label, SPACE, bias, threshold, 3, 30)
    ]
    assert read.digest == written.digest
    assert label in taught(store, SPACE)
    assert path.parent == store.path / "heads" / SPACE
    assert path.name.isascii()
    assert len(path.name) < 100


def test_probabilities_and_direction_are_those_of_the_rule() -> None:
    vectors = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0, -0.8]], np.float32)
    expected = [1 / (1 + np.exp(-3.5)), 1 / (1 + np.exp(-0.5)), 1 / (1 + np.exp(3.5)), 1 / (1 + np.exp(-5.5))]
    assert head().probabilities(vectors) == pytest.approx(expected, abs=1e-6)
    assert head().probabilities(vectors).dtype == head().direction.dtype == np.float32
    assert head().direction == pytest.approx([0.6, 0, -0.8])
    assert np.argsort(vectors @ head().direction).tolist() == np.argsort(head().probabilities(vectors)).tolist()
    with np.errstate(all="raise"):
        assert head(weights=np.array([1e6, 0, -1e6], np.float32)).probabilities(vectors[:3]) == pytest.approx(
            [1, 1 / (1 + np.exp(-0.5)), 0]
        )


def test_any_change_changes_the_digest() -> None:
    changes: list[dict[str, Any]] = [
        *({"label": "A goal"}, {"space": "other"}, {"method": "prototype"}, {"bias": 0.25}, {"threshold": 0.71}),
        *({"n_positive": 4}, {"n_negative": 31}, {"seed": 1}),
        {"weights": np.nextafter(head().weights, np.float32(9))},
    ]
    assert len({head().digest, *(head(**change).digest for change in changes)}) == len(changes) + 1


@pytest.mark.parametrize(
    "labels",
    [
        ("a/b", "a b", "a-b", "a.b", "A-B", "a\\b"),
        ("..", ".", "/", "../../store", "~", "-"),
        ("caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9"), "cafe"),
        ("\u72ac", "\u732b", "\U0001f436"),
        ("x" * 300, "x" * 301),
        ("nul", "con", "lock", "a.json"),
    ],
)
def test_labels_that_differ_only_in_odd_characters_have_files_of_their_own(
    store: Store, labels: tuple[str, ...]
) -> None:
    paths = {write_head(store, head(label, bias=float(n))) for n, label in enumerate(labels)}
    assert len({path.name.lower() for path in paths}) == len(labels)
    assert {path.parent for path in paths} == {store.path / "heads" / SPACE}
    assert [read_head(store, SPACE, label).bias for label in labels] == list(range(len(labels)))
    assert taught(store, SPACE) == sorted(labels)


def test_a_label_taught_again_replaces_the_old_one_in_its_space_only(store: Store) -> None:
    first = write_head(store, head())
    write_head(store, head(space="other"))
    assert write_head(store, head(bias=9.0)) == first
    assert read_head(store, SPACE, "a goal").bias == 9.0
    assert read_head(store, "other", "a goal").bias == 0.5
    assert taught(store, SPACE) == ["a goal"]
    assert taught(store, "a third") == []


def test_a_label_that_was_not_taught_is_told_with_those_that_were(store: Store) -> None:
    with pytest.raises(InputError, match=f"no label 'a gaol' was taught in {SPACE}") as raised:
        read_head(store, SPACE, "a gaol")
    assert "vidx teach" in raised.value.hint
    write_head(store, head("b"))
    write_head(store, head("a"))
    with pytest.raises(InputError) as raised:
        read_head(store, SPACE, "a gaol")
    assert raised.value.hint == "taught there: a, b"


def altered(text: str) -> list[str]:
    stored = json.loads(text)
    fields = stored["head"]
    return [
        "",
        text[: len(text) // 2],
        "[" * 100_000,
        "null",
        json.dumps(stored | {"version": 99}),
        json.dumps(stored | {"sha256": "0" * 64}),
        json.dumps({name: value for name, value in stored.items() if name != "sha256"}),
        json.dumps(stored | {"head": fields | {"threshold": 0.1}}),
        json.dumps(stored | {"head": fields | {"weights": [3.0, 0.0, -4.1]}}),
        json.dumps(stored | {"head": fields | {"weights": [3.0, 0.0, -4.000000001]}}),  # the same in float32
        json.dumps(stored | {"head": fields | {"weights": [float("nan"), 0.0, 1.0]}}),
        json.dumps(stored | {"head": fields | {"weights": [0.0, 0.0]}}),
        json.dumps(stored | {"head": fields | {"weights": "none"}}),
        json.dumps(stored | {"head": fields | {"bias": "none"}}),
        json.dumps(stored | {"head": fields | {"surplus": 1}}),
        json.dumps(stored | {"head": {name: value for name, value in fields.items() if name != "label"}}),
    ]


@pytest.mark.parametrize("number", range(16))
def test_a_garbled_or_altered_file_is_told_and_not_used(store: Store, number: int) -> None:
    path = write_head(store, head())
    texts = altered(path.read_text())
    assert len(texts) == 16
    path.write_text(texts[number])
    with pytest.raises(StoreDamaged, match=path.name):
        read_head(store, SPACE, "a goal")
    with pytest.raises(StoreDamaged, match=path.name):
        taught(store, SPACE)


def test_a_file_of_another_label_or_space_is_not_taken_for_this_one(store: Store) -> None:
    path, other = write_head(store, head()), write_head(store, head("other"))
    other.write_bytes(path.read_bytes())
    with pytest.raises(StoreDamaged, match="it is of 'a goal'"):
        read_head(store, SPACE, "other")


@pytest.mark.parametrize(
    "changed",
    [
        {"weights": np.zeros(3, np.float32)},
        {"weights": np.array([np.inf, 0], np.float32)},
        {"weights": np.ones(3)},
        {"weights": np.ones((1, 3), np.float32)},
        {"bias": float("nan")},
        {"threshold": 1.01},
        {"threshold": float("nan")},
    ],
)
def test_a_rule_that_can_not_be_one_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="of a head"):
        head(**changed)


def write_often(path: Path, bias: float) -> None:
    store = Store.open(path)
    for _ in range(20):
        write_head(store, head(bias=bias, weights=np.full(2000, bias + 1, np.float32)))


@pytest.mark.slow
def test_several_processes_may_teach_one_label_while_others_read_it(store: Store) -> None:
    write_often(store.path, 0.0)
    processes = [get_context("spawn").Process(target=write_often, args=(store.path, float(n))) for n in (1, 2)]
    for process in processes:
        process.start()
    seen = set()
    while any(process.is_alive() for process in processes):
        seen.add(read_head(store, SPACE, "a goal").bias)
    assert [process.exitcode for process in processes] == [0, 0]
    assert read_head(store, SPACE, "a goal").bias in (1.0, 2.0)
    assert seen <= {0.0, 1.0, 2.0}
    assert taught(store, SPACE) == ["a goal"]


def test_a_store_that_can_not_be_written_is_told_in_one_line(store: Store) -> None:
    (store.path / "heads").write_text("in the way")
    with pytest.raises(StoreError, match="can't write to the store at"):
        write_head(store, head())


def test_using_a_head_imports_no_library_of_learning() -> None:
    code = "import sys, vidx.schema.heads; sys.exit(any(m in sys.modules for m in ('sklearn', 'torch', 'faiss')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
