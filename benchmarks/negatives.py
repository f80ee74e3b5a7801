"""What rules for `--not` do: label words as query and as negative, over a folder of labelled clips.

    vidx index FOLDER --store STORE
    python benchmarks/negatives.py STORE FOLDER/LABELS.csv [--leave-out long/] [--json]

LABELS.csv has columns `path` (below FOLDER) and `label`. Every ordered pair of labels is a query, `A --not B`, ranked
by video. Told for the pairs in which a video of B is among the first five without `--not`: the share with a video of A
among the first five, with one of B there, and with one of A and none of B; and the first of these for all pairs.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import numpy as np

from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.search.query import encoder_of, settled_space

FIRST = 5
Rule = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # vectors (N, dim), wanted, unwanted to scores (N,)


def minus(share: float) -> Rule:
    """A query that points away from the unwanted."""

    def score(vectors: np.ndarray, wanted: np.ndarray, unwanted: np.ndarray) -> np.ndarray:
        query = wanted - share * unwanted
        return vectors @ (query / np.linalg.norm(query))

    return score


def penalty(share: float) -> Rule:
    """A penalty for clips that are more like the unwanted than the mean clip is."""

    def score(vectors: np.ndarray, wanted: np.ndarray, unwanted: np.ndarray) -> np.ndarray:
        like_unwanted = vectors @ unwanted
        return vectors @ wanted - share * np.maximum(0, like_unwanted - like_unwanted.mean())

    return score


RULES = {"no --not": minus(0)}
RULES |= {f"minus {share}": minus(share) for share in (0.25, 0.5, 1)}
RULES |= {f"penalty {share}": penalty(share) for share in (0.25, 0.5, 1, 2)}


def main() -> None:
    """Print the table, or one JSON object with --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--leave-out", default="long/", help="paths that begin with this are no right answers")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    measured = measure(arguments.store, read_labels(arguments.labels, arguments.leave_out))
    if arguments.json:
        print(json.dumps(measured))
        return
    for name, figures in measured.items():
        print(f"{name:<14}", *(f"{figure}: {value:<8}" for figure, value in figures.items()))


def measure(path: Path, label_of: dict[str, str]) -> dict[str, dict[str, float]]:
    """Figures by rule."""
    store = Store.open(path)
    space, snapshot = settled_space(store, None), Snapshot(store)
    rows = snapshot.rows(f"SELECT f.path, c.vector FROM {snapshot.clips(space.name)} c JOIN files f USING (video_id)")
    vectors = np.array([vector for _, vector in rows], np.float32)
    labels = np.array([label_of.get(path, "") for path, _ in rows])
    paths = np.array([path for path, _ in rows])
    names = sorted(set(label_of.values()))
    words = dict(zip(names, encoder_of(space).encode_text([name.replace("_", " ") for name in names]), strict=True))

    def first_labels(scores: np.ndarray) -> set[str]:
        """Labels of the first videos; a video ranks by its best clip, clips without a label don't count."""
        order = [clip for clip in np.argsort(-scores, kind="stable") if labels[clip]]
        found = dict.fromkeys(paths[order])
        return {label_of[path] for path in list(found)[:FIRST]}

    pairs = list(permutations(names, 2))
    plain = {name: first_labels(vectors @ words[name]) for name in names}
    confused = np.array([b in plain[a] for a, b in pairs])
    result = {}
    for name, rule in RULES.items():
        first = [first_labels(rule(vectors, words[a], words[b])) for a, b in pairs]
        wanted = np.array([a in found for (a, _), found in zip(pairs, first, strict=True)])
        unwanted = np.array([b in found for (_, b), found in zip(pairs, first, strict=True)])
        result[name] = {
            "pairs": int(confused.sum()),
            "wanted": round(float(wanted[confused].mean()), 3),
            "unwanted": round(float(unwanted[confused].mean()), 3),
            "both_right": round(float((wanted & ~unwanted)[confused].mean()), 3),
            "wanted_of_all_pairs": round(float(wanted.mean()), 3),
        }
    return result


def read_labels(path: Path, leave_out: str) -> dict[str, str]:
    """Absolute path of each clip to its label."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if not row["path"].startswith(leave_out)]
    return {str((path.parent / row["path"]).resolve()): row["label"] for row in rows}


if __name__ == "__main__":
    main()
