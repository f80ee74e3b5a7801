"""`vidx eval zero-shot`: encoders on a published data set, from lists of videos to a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidx import encoders
from vidx.encoders._label_sets import LABEL_SETS
from vidx.errors import InputError, UnknownChoice, WeightsError
from vidx.learn._pictures import class_bars_png, confusion_png
from vidx.learn.datasets import Split, read_splits
from vidx.learn.features import Features
from vidx.learn.metrics import confusion, mean_and_deviation
from vidx.learn.presets import EXAMPLES, PRESETS, Row
from vidx.learn.protocols import AS_AUTHORS, Wish, protocol_of
from vidx.learn.report import Report, Table
from vidx.learn.zero_shot import Candidate, Scored, half_classes, scored_splits
from vidx.schema.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

HALVES = "half-class"
SPLITS = ("each", "1", "2", "3", "pooled", "full", HALVES)
_AVERAGED = ("top1", "top5", "mean_class_accuracy")


@dataclass(frozen=True)
class Asked:
    """What is to be measured, on the videos below `root`."""

    root: Path
    dataset: str | None = None
    lists: Path | None = None
    split: str | None = None
    encoders: tuple[str, ...] = ()
    weights: tuple[Path, ...] = ()
    preset: str | None = None
    names: str = "published"
    wish: Wish = AS_AUTHORS
    pictures: bool = False
    seed: int = 0


def zero_shot(store_path: Path, asked: Asked, tell: Callable[[int, int], None]) -> tuple[Report, list[str]]:
    """A report, and a line for each thing that was left out of it. Raises VidxError."""
    asked, rows = _settled(asked)
    assert asked.dataset is not None
    split = asked.split or "each"
    if split not in SPLITS:
        raise UnknownChoice(f"no split {split!r}", hint=f"choose from: {', '.join(SPLITS)}")
    splits = read_splits(asked.dataset, asked.root, asked.lists, "full" if split == HALVES else split)
    if split == HALVES:
        [full] = splits
        if not (splits := half_classes(full)):
            raise InputError(f"{asked.dataset} has too few classes for halves of them", hint="take another --split")
    candidates, left_out = _candidates(store_path, asked, rows, splits)
    if asked.pictures and find_spec("matplotlib") is None:
        left_out.append("pictures: they need matplotlib; run `pip install 'vidx[plot]'`")
        asked = replace(asked, pictures=False)
    scored, failed = scored_splits(candidates, splits, names=asked.names, tell=tell)
    missing = {item.name for split in splits for item in split.items if item.path is None}
    left_out += [f"{path}: {reason}" for path, reason in failed.items()]
    left_out += [f"{name}: no such file below {asked.root}" for name in sorted(missing)]
    if not any(len(one.labels) for one in scored[0]):
        raise InputError(f"no video of {asked.dataset} below {asked.root} could be used: {left_out[0]}")
    return _report(asked, candidates, scored), left_out


def _settled(asked: Asked) -> tuple[Asked, tuple[Row, ...]]:
    """With what a preset says filled in, and the lines of the table."""
    if asked.preset is None:
        if asked.dataset is None:
            raise InputError("which data set is it?", hint="name it with --dataset, or a table with --preset")
        chosen = asked.encoders or (encoders.DEFAULT,)
        return asked, tuple(Row(name, name, (None, None), asked.wish) for name in chosen)
    if asked.preset not in PRESETS:
        known = ", ".join([*PRESETS, *EXAMPLES])
        raise UnknownChoice(f"no preset called {asked.preset!r}", hint=f"choose from: {known}")
    preset = PRESETS[asked.preset]
    if asked.dataset not in (None, preset.dataset) or asked.wish != AS_AUTHORS:
        raise InputError(
            f"preset {asked.preset} says how {preset.dataset} is tested", hint="leave out --dataset and other options"
        )
    rows = tuple(row for row in preset.rows if not asked.encoders or row.encoder in asked.encoders)
    if not rows:
        known = ", ".join(dict.fromkeys(row.encoder for row in preset.rows))
        raise InputError(f"{asked.encoders[0]} is not in preset {asked.preset}", hint=f"it has {known}")
    return replace(asked, dataset=preset.dataset, split=asked.split or preset.split), rows


def _candidates(
    store_path: Path, asked: Asked, rows: Sequence[Row], splits: Sequence[Split]
) -> tuple[list[Candidate], list[str]]:
    """The encoders of the rows that can be used here; of a preset's those that are not are told instead."""
    label_set = asked.dataset if asked.dataset in LABEL_SETS else None
    rate = next((item.frames_per_s for split in splits for item in split.items), None)
    built: dict[str, encoders.VideoTextEncoder] = {}
    usable, left_out = [], []
    if len({row.encoder for row in rows}) > 1 and asked.weights:
        raise InputError("--weights can't be shared by several encoders", hint="name one --encoder")
    for row in rows:
        try:
            if row.encoder not in built:
                built[row.encoder] = encoders.build(encoders.here(row.encoder, asked.weights))
        except WeightsError as error:
            if asked.preset is None:
                raise
            left_out.append(f"{row.title}: {error}; {error.hint}")
            continue
        encoder = built[row.encoder]
        protocol = protocol_of(encoder.spec, replace(row.wish, frames_per_s=rate), label_set)
        usable.append((row, encoder, protocol))
    if not usable:
        raise InputError(f"no encoder of preset {asked.preset} is here", hint=left_out[0])
    store = Store.create(store_path)
    candidates = [
        Candidate(row.title, Features(store, encoder, protocol.look), protocol, row.published)
        for row, encoder, protocol in usable
    ]
    return candidates, left_out


def _report(asked: Asked, candidates: Sequence[Candidate], scored: Sequence[Sequence[Scored]]) -> Report:
    figures = [
        {
            "title": candidate.title,
            "encoder": candidate.encoder.spec.name,
            "space": candidate.encoder.spec.space.name,
            "protocol": candidate.protocol.facts(),
            "published": {"top1": candidate.published[0], "top5": candidate.published[1]},
            **_averages(of_splits := [one.figures(asked.seed) for one in by_split if len(one.labels)]),
            "splits": of_splits,
            "classes": _by_class(by_split),
        }
        for candidate, by_split in zip(candidates, scored, strict=True)
    ]
    pictures: dict[str, bytes] = {}
    if asked.pictures:
        for number, (candidate, by_split) in enumerate(zip(candidates, scored, strict=True), 1):
            pictures |= _pictures(candidate.title, number, by_split)
    facts = {
        "data_set": asked.dataset,
        "root": str(asked.root),
        "split": asked.split or "each",
        "preset": asked.preset,
        "class_names": asked.names,
        "encoders": {one["title"]: one["protocol"] for one in figures},
    }
    return Report(
        title=f"Zero-shot classification on {asked.dataset}",
        facts={name: value for name, value in facts.items() if value is not None},
        tables=(_accuracy(candidates, figures),),
        figures={"encoders": figures},
        pictures=pictures,
        items=_items(candidates, scored),
    )


def _averages(of_splits: list[dict[str, Any]]) -> dict[str, float]:
    """Mean and population deviation over splits."""
    averages = {}
    for name in _AVERAGED:
        averages[name], averages[f"{name}_deviation"] = mean_and_deviation([one[name] for one in of_splits])
    return averages


def _accuracy(candidates: Sequence[Candidate], figures: list[dict[str, Any]]) -> Table:
    """In per cent: a line for each split, and one for their mean where there are several."""
    with_published = any(candidate.published != (None, None) for candidate in candidates)
    columns = ("encoder", "split", "items", "top-1 %", "95 % interval", "top-5 %", "mean class %", "deviation")
    rows = []
    for one in figures:
        several = len(one["splits"]) > 1
        lines: list[tuple[Any, ...]] = [
            (
                *(one["title"], split["split"], split["items"], 100 * split["top1"]),
                f"{100 * split['top1_low']:.1f} to {100 * split['top1_high']:.1f}",
                *(100 * split["top5"], 100 * split["mean_class_accuracy"], None),
            )
            for split in one["splits"]
        ]
        if several:
            averaged = (100 * one[name] for name in _AVERAGED)
            first, *others = averaged
            total = sum(split["items"] for split in one["splits"])
            lines.append((one["title"], "mean", total, first, None, *others, 100 * one["top1_deviation"]))
        published = tuple(one["published"].values())
        rows += [(*line, *(published if line is lines[-1] else (None, None))) for line in lines]
    note = "The interval is a bootstrap over items; the deviation, over splits, is that of the population."
    if not with_published:
        return Table("Accuracy", columns, tuple(row[:-2] for row in rows), note)
    return Table("Accuracy", (*columns, "published top-1", "published top-5"), tuple(rows), note)


def _together(by_split: Sequence[Scored]) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Classes, labels and predictions of all splits that have the classes of the first."""
    classes = by_split[0].split.classes
    alike = [one for one in by_split if one.split.classes == classes and len(one.labels)]
    labels = np.concatenate([one.labels for one in alike] or [np.empty(0, np.int64)])
    return classes, labels, np.concatenate([one.predictions for one in alike] or [labels])


def _by_class(by_split: Sequence[Scored]) -> dict[str, float]:
    """Top-1 accuracy of each class that occurs."""
    classes, labels, predictions = _together(by_split)
    right = labels == predictions
    return {classes[number]: float(right[labels == number].mean()) for number in np.unique(labels)}


def _pictures(title: str, number: int, by_split: Sequence[Scored]) -> dict[str, bytes]:
    classes, labels, predictions = _together(by_split)
    by_class = _by_class(by_split)
    if not by_class:
        return {}
    return {
        f"confusion_{number}.png": confusion_png(confusion(predictions, labels, len(classes)), classes),
        f"classes_{number}.png": class_bars_png(list(by_class), list(by_class.values()), f"{title}: top-1 by class"),
    }


def _items(candidates: Sequence[Candidate], scored: Sequence[Sequence[Scored]]) -> pa.Table:
    """A row for each item of each split, for each encoder."""
    import pyarrow as pa

    rows = []
    for candidate, by_split in zip(candidates, scored, strict=True):
        for one in by_split:
            best = np.argsort(-one.probabilities, axis=1, kind="stable")[:, :5]
            for at, (label, rank, top) in enumerate(zip(one.labels, one.ranks, best, strict=True)):
                item = one.split.items[one.numbers[at]]
                looked = one.classified[at]
                rows.append(
                    {
                        "encoder": candidate.title,
                        "split": one.split.name,
                        "item": item.name,
                        "path": str(item.path),
                        "label": one.split.classes[label],
                        "predicted": one.split.classes[top[0]],
                        "rank": int(rank) + 1,
                        "probability": float(one.probabilities[at, top[0]]),
                        "top5": [one.split.classes[number] for number in top],
                        "frames": looked.n_frames,
                        "frames_listed": item.listed_frames,
                        "indices": looked.indices.ravel().tolist(),
                    }
                )
    return pa.Table.from_pylist(rows)
