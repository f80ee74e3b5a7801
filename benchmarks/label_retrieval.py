"""How often a label's words find a video of that label: R@1 and R@5 over a folder of labelled clips.

    vidx index FOLDER --store STORE
    python benchmarks/label_retrieval.py STORE FOLDER/LABELS.csv [--leave-out long/] [--json]

LABELS.csv has columns `path` (below FOLDER) and `label`. Every label is one query, its underscores turned into spaces,
ranked by video. Intervals: percentile bootstrap over labels, 10,000 resamples, seeded.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from vidx.config import SearchOptions
from vidx.schema.store import Store
from vidx.search.run import search

RESAMPLES = 10_000


def main() -> None:
    """Print the table, or one JSON object as the last line with --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--leave-out", default="long/", help="paths that begin with this are no right answers")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    labels = read_labels(arguments.labels, arguments.leave_out)
    ranks = {label: first_right(arguments.store, label, labels) for label in sorted(set(labels.values()))}
    result: dict[str, Any] = {"labels": len(ranks), "videos": len(labels)}
    for k in (1, 5):
        hits = np.array([rank <= k for rank in ranks.values()], float)
        low, high = interval(hits)
        result |= {f"recall_at_{k}": round(float(hits.mean()), 3), f"recall_at_{k}_interval_95": [low, high]}
    if arguments.json:
        print(json.dumps(result))
        return
    for label, rank in ranks.items():
        print(f"{label:<24} first right video at rank {rank if np.isfinite(rank) else 'none'}")
    print(result)


def read_labels(path: Path, leave_out: str) -> dict[str, str]:
    """Absolute path of each clip to its label."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if not row["path"].startswith(leave_out)]
    return {str((path.parent / row["path"]).resolve()): row["label"] for row in rows}


def first_right(store: Path, label: str, labels: dict[str, str]) -> float:
    """Rank of the first video of a label among the labelled ones, infinity where there is none."""
    answer = search(Store.open(store), label.replace("_", " "), SearchOptions(k=10_000, by="video"))
    ranked = [labels[path] for hit in answer.hits for path in hit.paths if path in labels]
    return ranked.index(label) + 1 if label in ranked else np.inf


def interval(hits: np.ndarray) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a mean."""
    draws = np.random.default_rng(0).choice(hits, (RESAMPLES, len(hits)))
    low, high = np.percentile(draws.mean(axis=1), [2.5, 97.5])
    return round(float(low), 3), round(float(high), 3)


if __name__ == "__main__":
    main()
