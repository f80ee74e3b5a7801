"""What labels are worth: how often they are right, how well probabilities tell it, and what examples add.

    python benchmarks/photographs.py FILMS
    vidx index FILMS --store STORE --encoder conse
    python benchmarks/labels.py STORE FILMS/labels.csv [--mode single|multi] [--seeds N] [--json]

The file has the columns path, label and, where times are known, start_s, end_s; with a column `half`, rows of
`calibrate` are learnt from and rows of `test` are measured on, else all rows are measured on and nothing is calibrated.

1. Zero-shot: share of clips whose label comes first, and among the first five. Clips that a label covers half count.
2. Expected calibration error of the first label of each clip (15 bins), before and after calibration, on the test half.
   In mode single also by scale, without calibration, on the half that is learnt from.
3. Precision that was asked for and that was reached on the test half, with 95 % intervals (films drawn again 1,000
   times), and what it costs: the share of clips shown to have a label that get it, and of all clips that get any.
4. Few-shot: one label against all else from n examples and ten times as many other clips, at least 100: average
   precision and balanced accuracy on clips of other videos, mean over labels and draws, beside the label's text.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from vidx.config import TagOptions
from vidx.learn.few_shot import fit_logistic, fit_prototype
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.schema.store import Store
from vidx.search._tag_plan import TagPlan, plan_of
from vidx.search._tag_rows import CLIP, Block
from vidx.search._tag_sample import Truth, sampled
from vidx.search._tag_scores import Scored
from vidx.search.calibration import expected_calibration_error, top_label
from vidx.search.labels import read_labels
from vidx.search.query import settled_space

ASKED = (0.7, 0.8, 0.9, 0.95)
SCALES = (5, 10, 15, 20, 25, 30, 40, 60)
EXAMPLES = (1, 2, 3, 5, 10, 20)
DRAWS = 1000


def main() -> None:
    """Print the tables; with --json one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--mode", choices=("single", "multi"), default="single")
    parser.add_argument("--leave-out", default="long/", help="paths that begin with this don't count")
    parser.add_argument("--seeds", type=int, default=20, help="draws of examples")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    store = Store.open(arguments.store)
    bench = Bench(Snapshot(store), settled_space(store, None), arguments.mode)
    with tempfile.TemporaryDirectory() as scratch:
        names, samples = write_samples(arguments.labels, arguments.leave_out, Path(scratch))
        figures: dict[str, Any] = {"zero_shot": bench.zero_shot(names, samples["test"])}
        if "calibrate" in samples:
            figures["calibration_error"] = bench.calibration(names, samples)
            if arguments.mode == "single":
                figures["scale"] = bench.scales(names, samples)
            figures["precision"] = {f"{least:g}": bench.precision(names, samples, least) for least in ASKED}
        figures["few_shot"] = bench.few_shot(names, samples, arguments.seeds)
    for title, rows in figures.items():
        print(title)
        for name, value in rows.items():
            print(f"  {name:<12} {value}")
    if arguments.json:
        print(json.dumps(figures))


def write_samples(path: Path, leave_out: str, folder: Path) -> tuple[Path, dict[str, Path]]:
    """A file of the labels, and one of the rows of each half; without halves all are to test on."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if not row["path"].startswith(leave_out)]
    names = folder / "labels.txt"
    names.write_text("\n".join(sorted({row["label"] for row in rows if row["label"]})), encoding="utf-8")
    samples = {}
    for half in {row.get("half", "test") for row in rows}:
        samples[half] = folder / f"{half}.csv"
        with open(samples[half], "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["path", "label", "start_s", "end_s"], extrasaction="ignore", restval="")
            writer.writeheader()
            writer.writerows(row for row in rows if row.get("half", "test") == half)
    return names, samples


class Bench:
    """Measurements in one space."""

    def __init__(self, snapshot: Snapshot, space: Space, mode: str) -> None:
        self._snapshot, self._space, self._mode = snapshot, space, mode

    def plan(self, names: Path, **options: Any) -> TagPlan:
        """What `vidx tag` would do."""
        asked = TagOptions(labels=str(names), mode=self._mode, calibrated=False, **options)
        return plan_of(self._snapshot, self._space, asked)

    def truth(self, plan: TagPlan, names: Path, sample: Path) -> Truth:
        """Probabilities of a sample's clips, and what they show."""
        return sampled(self._snapshot, self._space, plan.score, read_labels(str(names)), sample)[0]

    def zero_shot(self, names: Path, sample: Path) -> dict[str, Any]:
        """Figures of 1."""
        truth = self.truth(self.plan(names), names, sample)
        shown = truth.shows.any(axis=1)
        best = np.where(truth.shows, truth.raw, -1).max(axis=1, keepdims=True)
        places = (truth.raw > best).sum(axis=1)[shown]
        of_labels = len(np.unique(np.nonzero(truth.shows)[1]))
        return {
            "clips": int(shown.sum()),
            "labels": of_labels,
            "top-1": interval(places < 1, truth.videos[shown]),
            "top-5": interval(places < 5, truth.videos[shown]),
        }

    def calibration(self, names: Path, samples: dict[str, Path]) -> dict[str, Any]:
        """Figures of 2."""
        found = {}
        learnt: dict[str, dict[str, Any]] = {
            "before": {},
            "platt": {"calibrate": samples["calibrate"]},
            "isotonic": {"calibrate": samples["calibrate"], "method": "isotonic"},
        }
        for name, options in learnt.items():
            truth = self.truth(self.plan(names, **options), names, samples["test"])
            error = expected_calibration_error(*top_label(truth.raw, truth.shows, truth.known))
            found[name] = round(error, 4)
        return found

    def scales(self, names: Path, samples: dict[str, Path]) -> dict[str, Any]:
        """Expected calibration errors by scale, on the half to learn from."""
        plan = self.plan(names)
        truth = self.truth(plan, names, samples["calibrate"])
        logits = np.log(np.maximum(truth.raw.astype(np.float64), 1e-300)) / plan.facts["logit_scale"]
        found = {}
        for scale in SCALES:
            powers = np.exp(scale * (logits - logits.max(axis=1, keepdims=True)))
            likely = powers / powers.sum(axis=1, keepdims=True)
            found[f"{scale}"] = round(expected_calibration_error(*top_label(likely, truth.shows, truth.known)), 4)
        return found

    def precision(self, names: Path, samples: dict[str, Path], least: float) -> dict[str, Any]:
        """Figures of 3."""
        plan = self.plan(names, calibrate=samples["calibrate"], precision=least)
        truth = self.truth(plan, names, samples["test"])
        given = (truth.raw >= plan.rules[CLIP].thresholds) & truth.known
        right = given & truth.shows
        shown = truth.shows.any(axis=1)
        return {
            "given": int(given.sum()),
            "reached": interval(right[given], truth.videos[np.nonzero(given)[0]]),
            "found": round(float(right.sum() / truth.shows.sum()), 3),
            "clips with a label": round(float(given.any(axis=1).mean()), 3),
            "of those that show one": round(float(given.any(axis=1)[shown].mean()), 3),
        }

    def few_shot(self, names: Path, samples: dict[str, Path], seeds: int) -> dict[str, Any]:
        """Figures of 4."""
        vectors: list[np.ndarray] = []

        def score(block: Block) -> tuple[Block, Scored]:
            vectors.append(block.vectors)
            return plan.score(block)

        plan = self.plan(names)
        parts = {}
        for half, sample in samples.items():
            vectors.clear()
            truth, _ = sampled(self._snapshot, self._space, score, read_labels(str(names)), sample)
            parts[half] = (np.concatenate(vectors), truth)
        return few_shot_figures(parts, seeds)


def few_shot_figures(parts: dict[str, tuple[np.ndarray, Truth]], seeds: int) -> dict[str, Any]:
    """By number of examples: rules from examples, and the text, on the same clips."""
    test_vectors, test = parts["test"]
    vectors, learnt = parts.get("calibrate", parts["test"])
    same = "calibrate" not in parts
    found: dict[str, Any] = {}
    for n in EXAMPLES:
        sums: dict[str, list[tuple[float, float]]] = {"logistic": [], "prototype": [], "text": []}
        used = set()
        for label in range(learnt.shows.shape[1]):
            films = np.unique(learnt.videos[learnt.shows[:, label]])
            if len(films) < n + same:  # of one's own films something must be left to test on
                continue
            used.add(label)
            for seed in range(seeds):
                rng = np.random.default_rng((seed, label, n))
                chosen = rng.choice(films, n, replace=False)
                of_films = [np.flatnonzero(learnt.shows[:, label] & (learnt.videos == film)) for film in chosen]
                positive = np.array([rng.choice(rows) for rows in of_films])
                others = np.flatnonzero(learnt.known[:, label] & ~learnt.shows[:, label])
                negative = rng.choice(others, min(max(10 * n, 100), len(others) // 2), replace=False)
                kept = test.known[:, label]
                if same:
                    taken = np.union1d(learnt.videos[positive], learnt.videos[negative])
                    kept = kept & ~np.isin(test.videos, taken)
                truth = test.shows[kept, label]
                if not truth.any() or truth.all():
                    continue
                for name, fit in (("logistic", fit_logistic), ("prototype", fit_prototype)):
                    groups = learnt.videos[np.concatenate([positive, negative])]
                    fitted = fit(vectors[positive], vectors[negative], groups=groups)
                    sums[name].append(quality(fitted.probabilities(test_vectors[kept]), truth, fitted.threshold))
                sums["text"].append(quality(test.raw[kept, label], truth, None))
        if used:
            means = {name: np.round(np.mean(values, axis=0), 3).tolist() for name, values in sums.items() if values}
            found[f"{n} examples"] = {"labels": len(used), **means}
    return found


def quality(scores: np.ndarray, truth: np.ndarray, threshold: float | None) -> tuple[float, float]:
    """Average precision, and balanced accuracy; without a threshold at the best one there is, which nobody knows."""
    order = np.argsort(-scores, kind="stable")
    hits = truth[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    recall, passed = np.cumsum(hits) / hits.sum(), np.cumsum(~hits) / (~hits).sum()
    balanced = float(((recall + 1 - passed) / 2).max())
    if threshold is not None:
        given = scores >= threshold
        balanced = float((given[truth].mean() + (~given[~truth]).mean()) / 2)
    return float(precision[hits].mean()), balanced


def interval(right: np.ndarray, videos: np.ndarray) -> str:
    """The mean of bool (n,), and its 95 % interval where whole videos are drawn again."""
    if len(right) == 0:
        return "none"
    each, number = np.unique(videos, return_inverse=True)
    sums, counts = np.bincount(number, right), np.bincount(number)
    drawn = np.random.default_rng(0).integers(0, len(each), (DRAWS, len(each)))
    low, high = np.percentile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), [2.5, 97.5])
    return f"{right.mean():.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
