"""The stages of `vidx teach` in order: files to moments, moments to clips, negatives drawn, fitted, stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidx.errors import InputError
from vidx.learn.examples import matched, read_moments
from vidx.learn.few_shot import OutOfFold, fit_logistic, fit_prototype
from vidx.schema.heads import Head, write_head
from vidx.schema.records import can_be_shown
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.search.collection import Collection, open_collection
from vidx.search.query import settled_space

METHODS = {"logistic": fit_logistic, "prototype": fit_prototype}
_RANDOM_PER_POSITIVE, _LEAST_RANDOM = 10, 100


@dataclass(frozen=True)
class Taught:
    """What came of teaching; `unmatched` has a line for each moment that no clip was found for, and why."""

    head: Head
    file: Path
    n_random: int  # of the negatives, drawn at random
    out_of_fold: OutOfFold | None
    unmatched: list[str]
    trouble: str  # what was wrong with an index that could not be used; empty: nothing


def teach(
    store: Store,
    label: str,
    sources: Sequence[Path],
    negative_sources: Sequence[Path] = (),
    *,
    n_random: int | None = None,
    method: str = "logistic",
    encoder: str | None = None,
    seed: int = 0,
) -> Taught:
    """Fit a label to the moments that files name, and store it.

    Further negatives, `n_random` or, for None, 10 times the positives and at least 100, are drawn from the clips of
    videos without a positive; fewer where there are fewer. Raises InputError for files, or a choice of moments, that
    can't be learnt from; StoreError.
    """
    label = check_label(label)
    moments = [moment for path in sources for moment in read_moments(path)]
    moments += [moment for path in negative_sources for moment in read_moments(path, all_negative=True)]
    snapshot, space = Snapshot(store), settled_space(store, encoder)
    collection = open_collection(snapshot, space)
    positive, negative, unmatched = matched(snapshot, collection, moments)
    if n_random is None:
        n_random = max(_LEAST_RANDOM, _RANDOM_PER_POSITIVE * len(positive))
    drawn = _drawn(collection, positive, negative, n_random, seed)
    if len(negative) + len(drawn) == 0:
        raise InputError(
            "there is nothing that does not show the label",
            hint="mark hits as not relevant, give --not-from FILE, or index more videos for --random",
        )
    ids = np.concatenate([positive, negative, drawn])
    vectors, videos = collection.clips(ids).vectors, collection.live.place(ids)
    fitted = METHODS[method](vectors[: len(positive)], vectors[len(positive) :], seed=seed, groups=videos)
    head = Head(
        label=label,
        space=space.name,
        method=method,
        weights=fitted.weights,
        bias=fitted.bias,
        threshold=fitted.threshold,
        n_positive=len(positive),
        n_negative=len(ids) - len(positive),
        seed=seed,
    )
    file = write_head(store, head)
    return Taught(head, file, len(drawn), fitted.out_of_fold, unmatched, collection.trouble)


def check_label(label: str) -> str:
    """The label without white space around it. Raises InputError where nothing, or nothing printable, is left."""
    label = " ".join(label.split())
    if not label or not can_be_shown(label):
        raise InputError(f"{label!r} is no label", hint="give a word or a few, of characters that can be shown")
    return label


def _drawn(collection: Collection, positive: np.ndarray, negative: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Ids int64 of at most n clips, at random, of videos that hold none of the positive ones."""
    others = np.ones(len(collection.live.firsts), bool)
    others[collection.live.place(positive)] = False
    free = np.setdiff1d(collection.live.at(others).ids(), negative, assume_unique=True)
    return np.sort(np.random.default_rng(seed).choice(free, min(n, len(free)), replace=False))
