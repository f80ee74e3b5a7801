"""What scores are worth: between queries, for videos of several clips, and as ranges of time.

    vidx index FOLDER --store STORE
    python benchmarks/scores.py STORE FOLDER/LABELS.csv [--segments FOLDER/SEGMENTS.csv] [--leave-out long/] [--json]

1. Every label is a query and every video an answer, right or wrong. All are put in one list by score: average precision
   and area under the ROC curve of that list, for rules that make scores comparable between queries. And of the answers
   above a least score, how many are right.
2. Videos ranked by the mean of their best n clips: R@1 and R@5.
3. With --segments (columns path, start_s, end_s, label: what is seen when in a film of `long/`): each label is searched
   in that film alone; intersection over union of the first hit with the segment of the label that it meets best.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from vidx.config import SearchOptions
from vidx.schema.condition import Filters, matching_clips
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.schema.store import Store
from vidx.search.probes import probe_queries
from vidx.search.query import encoder_of, settled_space
from vidx.search.run import search_vectors

LEAST = (0.0, 1.0, 1.5, 2.0, 2.5, 3.0)


def main() -> None:
    """Print the tables, or one JSON object with --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--segments", type=Path)
    parser.add_argument("--leave-out", default="long/", help="paths that begin with this are no answers in 1 and 2")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    store = Store.open(arguments.store)
    space, snapshot = settled_space(store, None), Snapshot(store)
    label_of = read_labels(arguments.labels, arguments.leave_out)
    measured = {**between_queries(snapshot, space, label_of)}
    if arguments.segments:
        measured["ranges"] = ranges(snapshot, space, arguments.segments)
    if arguments.json:
        print(json.dumps(measured))
        return
    for name, rows in measured.items():
        print(name)
        for row, figures in rows.items():
            shown = "  ".join(f"{figure} {value:.3f}" if isinstance(value, float) else f"{figure} {value}"
                              for figure, value in figures.items())  # fmt: skip
            print(f"  {row:<28} {shown}")


def between_queries(snapshot: Snapshot, space: Space, label_of: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Figures 1 and 2 by rule, and by least score."""
    rows = snapshot.rows(f"SELECT f.path, c.vector FROM {snapshot.clips(space.name)} c JOIN files f USING (video_id)")
    vectors = np.array([vector for _, vector in rows], np.float32)
    names = sorted(set(label_of.values()))
    texts = encoder_of(space).encode_text([name.replace("_", " ") for name in names])
    scores = texts @ vectors.T  # of every clip, labelled or not
    probes, _ = probe_queries(space, vectors, 0)
    probed = probes @ vectors.T
    deviations = (scores - scores.mean(axis=1, keepdims=True)) / scores.std(axis=1, keepdims=True)
    above_probes = (scores - probed.mean(axis=0)) / probed.std(axis=0)
    rules = {
        "cosine": scores,
        "less the mean of all clips": scores - scores.mean(axis=1, keepdims=True),
        "deviations above all clips": deviations,
        "deviations above other texts": above_probes,
        "both, one after the other": (above_probes - above_probes.mean(axis=1, keepdims=True))
        / above_probes.std(axis=1, keepdims=True),
    }
    videos = [path for path in dict.fromkeys(path for path, _ in rows) if path in label_of]
    clips_of = [[clip for clip, (path, _) in enumerate(rows) if path == video] for video in videos]
    is_right = np.array([[label_of[video] == name for video in videos] for name in names])

    def of_videos(rule: np.ndarray, n_best: int = 1) -> np.ndarray:
        return np.stack([-np.sort(-rule[:, own], axis=1)[:, :n_best].mean(axis=1) for own in clips_of], axis=1)

    comparable = {name: one_list(of_videos(rule), is_right) for name, rule in rules.items()}
    best = {f"mean of the best {n}": recall(of_videos(scores, n), is_right) for n in (1, 2, 3, 4)}
    standard = of_videos(deviations)
    least = {
        f"at least {z}": {
            "answers": int((standard >= z).sum()),
            "right": float(is_right[standard >= z].mean()) if (standard >= z).any() else float("nan"),
            "of all right ones": float((standard >= z)[is_right].mean()),
        }
        for z in LEAST
    }
    return {"scores in one list": comparable, "least score": least, "videos by": best}


def one_list(scores: np.ndarray, is_right: np.ndarray) -> dict[str, Any]:
    """Average precision and area under the ROC curve of all answers to all queries together."""
    order = np.argsort(-scores.ravel(), kind="stable")
    right = is_right.ravel()[order]
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    ahead = np.cumsum(right)[~right].sum() / (right.sum() * (~right).sum())
    return {"average_precision": float(precision[right].mean()), "roc_area": float(ahead)}


def recall(scores: np.ndarray, is_right: np.ndarray) -> dict[str, Any]:
    """Share of queries with a right answer among the first one and five."""
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked = np.take_along_axis(is_right, order, axis=1)
    return {"r_at_1": float(ranked[:, :1].any(axis=1).mean()), "r_at_5": float(ranked[:, :5].any(axis=1).mean())}


def ranges(snapshot: Snapshot, space: Space, segments: Path) -> dict[str, dict[str, Any]]:
    """Figures 3 by film."""
    with open(segments, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    result = {}
    for film in dict.fromkeys(row["path"] for row in rows):
        own = [row for row in rows if row["path"] == film]
        kept, _ = matching_clips(snapshot, space.name, Filters(f"ends_with(path, '/{film}')"))
        overlaps = []
        for label in sorted({row["label"] for row in own}):
            [vector] = encoder_of(space).encode_text([label.replace("_", " ")])
            ranked, _ = search_vectors(snapshot, space, [vector], SearchOptions(k=1), kept)
            meant = [(float(row["start_s"]), float(row["end_s"])) for row in own if row["label"] == label]
            overlaps += [max(overlap((hit.start_s, hit.end_s), each) for each in meant) for hit, _ in ranked]
        result[film] = {
            "labels": len(overlaps),
            "mean_iou": float(np.mean(overlaps)),
            "met": float(np.mean(np.array(overlaps) > 0)),
        }
    return result


def overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Intersection over union of two ranges of time."""
    common = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    return common / (one[1] - one[0] + other[1] - other[0] - common)


def read_labels(path: Path, leave_out: str) -> dict[str, str]:
    """Absolute path of each clip to its label."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if not row["path"].startswith(leave_out)]
    return {str((path.parent / row["path"]).resolve()): row["label"] for row in rows}


if __name__ == "__main__":
    main()
