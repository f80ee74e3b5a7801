"""`vidx search --tag LABEL`: hits get a label, kept in one set of tags for all such searches."""

from __future__ import annotations

import secrets
from importlib.metadata import version
from typing import Any

import numpy as np

from vidx.config import SearchOptions
from vidx.errors import InputError
from vidx.schema.heads import read_head
from vidx.schema.records import Hit, can_be_shown
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.schema.tables import SEARCHES
from vidx.schema.tag_tables import tagging
from vidx.search._tag_rows import CLIP, SEGMENT
from vidx.search._tag_scores import BACKGROUND, MULTI, probabilities_of
from vidx.search.collection import open_collection
from vidx.search.labels import digest_of
from vidx.search.query import Asked, encoder_of, query_vectors


def check_label(label: str) -> None:
    """Raises InputError for what is no label."""
    if not label.strip() or not can_be_shown(label):
        raise InputError(f"--tag: {label!r} is no label", hint="give some words")


def tag_hits(
    snapshot: Snapshot, space: Space, asked: Asked, options: SearchOptions, hits: list[Hit], peaks: list[int]
) -> str:
    """Make the hits all that the set SEARCHES holds of the label; says so. `peaks` are the ids of their best clips.

    The probability is that of `vidx tag --mode multi` for the query, or of a taught label that is all of it, or what
    the hits were listed by. Raises StoreError.
    """
    label = " ".join(str(options.tag).split())
    run_id = secrets.token_hex(16)
    constants = {
        "level": CLIP if options.by == "clip" else SEGMENT,
        "label": label,
        "threshold": None,
        "encoder": space.encoder,
        "weights_digest": space.weights_digest,
        "prompts_digest": digest_of({"query": str(asked), "background": BACKGROUND, "mode": MULTI}),
        "tag_set": SEARCHES,
        "run_id": run_id,
    }
    probabilities = _probabilities(snapshot, space, asked, hits, peaks)
    rows: list[dict[str, Any]] = []
    for hit, peak, probability in zip(hits, peaks, probabilities, strict=True):
        facts = {"video_id": hit.video_id, "path": hit.path, "start_s": hit.start_s, "end_s": hit.end_s}
        own = {
            "clip_id": peak if options.by == "clip" else None,
            "score": None if asked.is_listing else hit.score,
            "probability": probability,
        }
        rows.append({**constants, **facts, **own, "rank": 1})
    with tagging(snapshot.store) as writer:
        facts = {"vidx": version("vidx"), "run_id": run_id, "space": space.name, "query": str(asked), "label": label}
        writer.relabel(SEARCHES, label, run_id, rows, facts)
    return f"{len(rows)} hits are tagged {label!r} in the set {SEARCHES}"


def _probabilities(
    snapshot: Snapshot, space: Space, asked: Asked, hits: list[Hit], peaks: list[int]
) -> list[float | None]:
    if asked.is_listing:
        return [hit.score or None for hit in hits]
    if not peaks:
        return []
    clips = open_collection(snapshot, space).clips(np.array(peaks)).vectors
    if asked.taught and not (asked.texts or asked.examples or asked.unwanted or asked.then or len(asked.taught) > 1):
        found: list[float | None] = read_head(snapshot.store, space.name, asked.taught[0]).probabilities(clips).tolist()
        return found
    encoder = encoder_of(space)
    cosines = clips @ query_vectors(snapshot, space, asked)[0][:, None]
    apart = clips @ encoder.encode_text(list(BACKGROUND)).T
    told, _ = probabilities_of(cosines, apart, np.float32(encoder.logit_scale), MULTI)
    of_query: list[float | None] = told[:, 0].tolist()
    return of_query
