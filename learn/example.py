"""A published example: how likely some labels are for one video, beside what its authors got."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vidx import encoders
from vidx.errors import InputError
from vidx.learn.features import Features, compute
from vidx.learn.presets import EXAMPLES
from vidx.learn.protocols import Wish, protocol_of
from vidx.learn.report import Report, Table
from vidx.learn.zero_shot import Candidate, LabelTexts
from vidx.schema.store import Store


def example(
    store_path: Path, name: str, video: Path, weights: tuple[Path, ...], tell: Callable[[int, int], None]
) -> Report:
    """One of EXAMPLES on its video. Raises VidxError."""
    published = EXAMPLES[name]
    if not video.is_file():
        raise InputError(
            f"{video} is no file", hint=f"preset {name} takes the video of its authors: {published.source}"
        )
    encoder = encoders.build(encoders.here(published.encoder, weights))
    protocol = protocol_of(encoder.spec, Wish(templates=(published.template,)))
    candidate = Candidate(published.encoder, Features(Store.create(store_path), encoder, protocol.look), protocol)
    keys, failed = compute([candidate.features], [video], tell)
    if video in failed:
        raise InputError(f"{video}: {failed[video]}", hint="give a video that can be played")
    labels = list(published.probabilities)
    [(_, featured)] = candidate.features.read({keys[video]: 0})
    found = dict(zip(labels, LabelTexts(candidate, labels).probabilities(featured.rows).tolist(), strict=True))
    rows = tuple((label, found[label], published.probabilities[label]) for label in labels)
    return Report(
        title=f"Probabilities for {video.name}",
        facts={"preset": name, "source": published.source, "encoder": published.encoder, **protocol.facts()},
        tables=(Table("Labels", ("label", "probability", "published"), rows),),
        figures={"probabilities": found, "published": published.probabilities},
    )
