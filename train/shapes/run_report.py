"""The report behind a training of `shapes`: whether captions find clips, and which motions are taken for which."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from vidx import encoders
from vidx.encoders._trained import read_model
from vidx.learn._pictures import confusion_png
from vidx.learn.metrics import confusion
from vidx.learn.report import Report, Table, write_report
from vidx.train.shapes.captions import motion_prompts, whole_caption
from vidx.train.shapes.data import Clips, clips, fitting, stream, told_numbers
from vidx.train.shapes.scenes import MOTIONS

CLIPS = 240  # as many again with what is held out
_STREAM = 5  # of random numbers of a seed; training and pools have others


def report_on(folder: Path, seed: int) -> Path:
    """Try the encoder in a folder on clips that it was not trained on, and write a report there. Returns its path."""
    encoder = encoders.build(encoders.here(str(folder)))
    rows: list[tuple[str | float | int | None, ...]] = []
    counts, figures = np.zeros((len(MOTIONS), len(MOTIONS)), np.int64), {}
    prompts = encoder.encode_text(motion_prompts())
    for number, (name, held_out) in enumerate((("seen", False), ("held out", True))):
        made = clips(stream(seed, _STREAM, number), CLIPS, held_out=held_out)
        videos = encoder.encode_video(made.pictures)
        motions, told = made.contents[:, 0, 2], (videos @ prompts.T).argmax(axis=1)
        counts += confusion(told, motions, len(MOTIONS))
        shares = (*_recalls(encoder, made, videos), float((told == motions).mean()))
        rows.append((name, len(videos), *(100 * share for share in shares)))
        figures[name] = dict(zip(("recall_1", "recall_5", "motion"), shares, strict=True))
    facts = read_model(folder)
    report = Report(
        title="shapes on clips of its own kind",
        facts={name: facts[name] for name in ("trained_on", "frames", "pooling")} | {"seed": seed},
        tables=(
            Table("Combinations", ("shape, colour and motion", "clips", "R@1 %", "R@5 %", "motion %"), tuple(rows)),
            _by_motion(counts),
        ),
        figures={**figures, "confusion": counts.tolist()},
        pictures={"confusion.png": confusion_png(counts, MOTIONS)} if find_spec("matplotlib") else {},
    )
    write_report(report, folder)
    return folder / "report.md"


def _recalls(encoder: encoders.VideoTextEncoder, made: Clips, videos: np.ndarray) -> tuple[float, float]:
    """How often the first clip, and one of the first five, is one that a whole caption is true of."""
    captions = [whole_caption(scene.contents) for scene in made.scenes]
    scores = encoder.encode_text([caption.text for caption in captions]) @ videos.T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    hits = np.take_along_axis(fitting(told_numbers(captions), made.contents), best, axis=1)
    return float(hits[:, 0].mean()), float(hits.any(axis=1).mean())


def _by_motion(counts: np.ndarray) -> Table:
    rows: list[tuple[Any, ...]] = []
    for motion, row in zip(MOTIONS, counts, strict=True):
        wrong = np.where(np.array(MOTIONS) == motion, 0, row)
        taken_for = MOTIONS[int(wrong.argmax())] if wrong.any() else None
        right = 100 * float(row.sum() - wrong.sum()) / row.sum() if row.any() else None
        rows.append((motion, int(row.sum()), right, taken_for))
    return Table("Motions", ("motion", "clips", "right %", "most often taken for"), tuple(rows))
