"""`vidx eval compare`: encoders side by side on the same frames: what they find, what they cost, and what time adds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidx.config import CLIP_S
from vidx.indexer.frames import Look, looked_at
from vidx.indexer.sampling import Sampling
from vidx.learn._pictures import sheet_png
from vidx.learn.pairs import read_pairs
from vidx.learn.protocols import AS_AUTHORS, Wish
from vidx.learn.report import Report, Table
from vidx.learn.retrieval import Usable, Vectors, facts_of, figures_of, tables, texts_as, vectors_of
from vidx.learn.reversals import reversed_text
from vidx.schema.records import Preprocess

_TIMED = 8  # clips
_EXAMPLES = 6
_SHEET = Look(Sampling("centres", 8), Preprocess(112, 112, "bilinear"))


def compare(
    store_path: Path,
    pairs_path: Path,
    root: Path,
    names: Sequence[str],
    *,
    wish: Wish = AS_AUTHORS,
    split: str | None = None,
    pictures: bool = False,
    tell: Callable[[int, int], None],
) -> tuple[Report, list[str]]:
    """A report, and a line for each video that was left out. Raises VidxError."""
    pairs = read_pairs(pairs_path, root, split=split)
    usable, each = vectors_of(store_path, pairs, names, wish=wish, tell=tell)
    directions = [directions_of(one, usable, wish) for one in each]
    costs = [_cost(one, usable) for one in each]
    figures = [
        figures_of(one, usable) | cost | {"directions": {kind: vars(of) for kind, of in found.items()}}
        for one, found, cost in zip(each, directions, costs, strict=True)
    ]
    wins = list(_wins(each, usable))
    report = Report(
        title=f"{' beside '.join(names)} on {pairs_path.name}",
        facts=facts_of(pairs_path, root, usable, each),
        tables=(*tables(figures), _costs(figures), *_told(each, directions), *(table for table, _ in wins)),
        figures={"videos": len(usable.names), "texts": len(usable.texts), "encoders": figures},
        pictures=_sheets(usable, wins) if pictures else {},
    )
    return report, usable.left_out


@dataclass(frozen=True)
class Told:
    """How often a video is nearer to its text than to that text told the other way round; of n texts."""

    accuracy: float
    n: int


def directions_of(vectors: Vectors, usable: Usable, wish: Wish) -> dict[str, Told]:
    """By kind of change, and `all` of them; empty where no text tells of one. Equal scores are wrong."""
    turned = [reversed_text(text) for text in usable.texts]
    telling = [number for number, (_, kinds) in enumerate(turned) if kinds]
    if not telling:
        return {}
    videos, texts = vectors.videos[usable.video_of_text[telling]], vectors.texts[telling]
    others = texts_as([turned[number][0] for number in telling], vectors.encoder, wish)
    right = (videos * texts).sum(axis=1) > (videos * others).sum(axis=1)
    by_kind: dict[str, list[bool]] = {}
    for number, is_right in zip(telling, right.tolist(), strict=True):
        for kind in sorted(turned[number][1]):
            by_kind.setdefault(kind, []).append(is_right)
    found = {kind: Told(float(np.mean(of)), len(of)) for kind, of in sorted(by_kind.items())}
    return found | {"all": Told(float(right.mean()), len(right))}


def _cost(vectors: Vectors, usable: Usable) -> dict[str, float]:
    """Median seconds for a clip, one after another once it is warm, and per hour of video in the usual windows."""
    asked = ((path, [vectors.protocol.look]) for path in usable.paths[:_TIMED])
    clips = [looked.views[0][:1] for looked in looked_at(asked) if looked.views]
    vectors.encoder.encode_video(clips[0])
    walls, cpus = [], []
    for clip in clips:
        wall_s, cpu_s = time.perf_counter(), _cpu_s()
        vectors.encoder.encode_video(clip)
        walls.append(time.perf_counter() - wall_s)
        cpus.append(_cpu_s() - cpu_s)
    per_hour = 3600 / CLIP_S
    return {
        "encode_wall_s_per_clip": float(np.median(walls)),
        "encode_wall_s_per_hour": float(np.median(walls)) * per_hour,
        "encode_cpu_s_per_hour": float(np.median(cpus)) * per_hour,
    }


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system


def _costs(figures: Sequence[dict[str, Any]]) -> Table:
    least = min(one["encode_wall_s_per_hour"] for one in figures)
    rows = tuple(
        (
            one["encoder"],
            one["protocol"]["frames"],
            1000 * one["encode_wall_s_per_clip"],
            one["encode_wall_s_per_hour"],
            one["encode_cpu_s_per_hour"],
            one["encode_wall_s_per_hour"] / least,
        )
        for one in figures
    )
    columns = ("encoder", "frames", "ms a clip", "s an hour", "CPU s an hour", "times the cheapest")
    note = f"Encoding an hour of video in windows of {CLIP_S:g} s on this machine; decoding is the same for all."
    return Table("Cost", columns, rows, note)


def _told(each: Sequence[Vectors], directions: Sequence[dict[str, Told]]) -> Iterator[Table]:
    """Which encoder tells a change from its reverse; no table where no text tells of one."""
    if not directions[0]:
        return
    rows: tuple[tuple[str | float, ...], ...] = tuple(
        (kind, *(100 * found[kind].accuracy for found in directions), told.n) for kind, told in directions[0].items()
    )
    columns = ("change", *(f"{one.encoder.spec.name} %" for one in each), "texts")
    note = "How often a video is nearer to its text than to the text told the other way round; guessing gives 50."
    yield Table("Direction of time", columns, rows, note)


@dataclass(frozen=True)
class Win:
    """A text whose video one encoder ranks higher than the other, by 1-based ranks."""

    text: str
    path: Path
    better: int
    worse: int


def _wins(each: Sequence[Vectors], usable: Usable) -> Iterator[tuple[Table, list[Win]]]:
    """For the first encoder and each other, both ways: the texts with the largest gain."""
    ranks = [_ranks(one, usable) for one in each]
    for number in range(1, len(each)):
        for better, worse in ((0, number), (number, 0)):
            gain = ranks[worse] - ranks[better]
            best = [int(at) for at in np.argsort(-gain, kind="stable")[:_EXAMPLES] if gain[at] > 0]
            found = [
                Win(
                    usable.texts[at],
                    usable.paths[usable.video_of_text[at]],
                    int(ranks[better][at]),
                    int(ranks[worse][at]),
                )
                for at in best
            ]
            one, other = each[better].encoder.spec.name, each[worse].encoder.spec.name
            rows = tuple((win.text, win.path.name, win.better, win.worse) for win in found)
            note = f"{one} ranks the video of {int((gain > 0).sum())} of {len(gain)} texts higher than {other} does."
            yield Table(f"Where {one} does better than {other}", ("text", "video", one, other), rows, note), found


def _ranks(vectors: Vectors, usable: Usable) -> np.ndarray:
    """1-based rank of each text's video among all, int64; equal ones count against it."""
    similarities = vectors.texts @ vectors.videos.T
    own = similarities[np.arange(len(usable.texts)), usable.video_of_text]
    ranks: np.ndarray = (similarities >= own[:, None]).sum(axis=1)
    return ranks


def _sheets(usable: Usable, wins: Sequence[tuple[Table, list[Win]]]) -> dict[str, bytes]:
    """A contact sheet for each table of wins that has any."""
    paths = sorted({win.path for _, found in wins for win in found})
    shown = {
        path: looked.views[0][0]
        for path, looked in zip(paths, looked_at((path, [_SHEET]) for path in paths), strict=True)
        if looked.views
    }
    sheets = {}
    for number, (table, found) in enumerate(wins, 1):
        rows = [
            (f"{win.text}  (rank {win.better}, {win.worse})", shown[win.path]) for win in found if win.path in shown
        ]
        if rows:
            sheets[f"examples_{number}.png"] = sheet_png(rows, table.title)
    return sheets
