"""The stages of `vidx search` in order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vidx.config import SearchOptions
from vidx.schema.condition import Filters, matching_clips
from vidx.schema.records import Answer, Hit
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.schema.store import Store
from vidx.search.collection import Collection, open_collection
from vidx.search.hits import hits_of, peak_thumbnails
from vidx.search.listing import listed
from vidx.search.query import check_asked, encoder_of, query_vectors, settled_space
from vidx.search.rerank import check_rerank, rerank
from vidx.search.retrieve import Span, retrieve
from vidx.search.sequence import sequences
from vidx.search.tag_hits import check_label, tag_hits


def search(store: Store, texts: Sequence[str], options: SearchOptions) -> Answer:
    """Answer one query, of words, of examples or of both, over everything committed. Raises VidxError."""
    asked = check_asked(texts, options)
    if options.tag is not None:
        check_label(options.tag)
    space = settled_space(store, options.encoder)
    if options.rerank:
        check_rerank(encoder_of(space), asked)
    began = time.perf_counter()
    snapshot = Snapshot(store)
    filters = Filters(options.where, options.after, options.before, options.tag_set)
    kept, probable = None, np.empty(0, np.float32)
    if filters[:3] != (None, None, None):
        kept, probable = matching_clips(snapshot, space.name, filters)
    filtered = time.perf_counter()
    vectors = [] if asked.is_listing else query_vectors(snapshot, space, asked)
    loaded = time.perf_counter()
    if asked.is_listing and kept is not None:
        ranked, trouble = _listed(snapshot, space, kept, probable, options)
    else:
        wanted = replace(options, k=max(options.k, options.rerank))
        ranked, trouble = search_vectors(snapshot, space, vectors, wanted, kept)
    notes = [f"{trouble}; searched without it; run `vidx index --rebuild-index`"] if trouble else []
    if options.rerank:
        ranked, left = rerank(store, space, encoder_of(space), asked.texts[0], ranked, options.rerank)
        notes += [left] if left else []
    hits, peaks = [hit for hit, _ in ranked[: options.k]], [peak for _, peak in ranked[: options.k]]
    if options.tag is not None:
        notes.append(tag_hits(snapshot, space, asked, options, hits, peaks))
    ended = time.perf_counter()
    return Answer(
        store=str(store.path),
        query=str(asked) or str(options.where or "all clips of a time"),
        space=space.name,
        load_ms=round((loaded - filtered) * 1000, 1),
        took_ms=round((filtered - began + ended - loaded) * 1000, 1),
        total=len(hits) if len(hits) < options.k and _may_leave_fewer(options) else None,
        hits=hits,
        thumbnails=peak_thumbnails(snapshot, space.name, peaks) if options.thumbnails else [],
        notes=notes,
    )


def search_vectors(
    snapshot: Snapshot,
    space: Space,
    vectors: list[np.ndarray],
    options: SearchOptions,
    kept: np.ndarray | None = None,
) -> tuple[list[tuple[Hit, int]], str]:
    """Hits and the ids of their best clips for the unit vectors of events that follow one another; mostly it is one.

    `kept`, ascending ids int64 (n,), are the clips that count; None means all. Also says what was wrong with an index
    that could not be used, or nothing. Raises VidxError.
    """
    collection = open_collection(snapshot, space)
    if len(vectors) == 1:
        spans = retrieve(collection, vectors[0], options, kept)
    else:
        spans = sequences(collection, vectors, options, kept)
    return _told(snapshot, collection, spans)


def _listed(
    snapshot: Snapshot, space: Space, kept: np.ndarray, probable: np.ndarray, options: SearchOptions
) -> tuple[list[tuple[Hit, int]], str]:
    """As `search_vectors`, of what passes a filter, where there is nothing to rank it by but its tags."""
    collection = open_collection(snapshot, space)
    return _told(snapshot, collection, listed(collection, kept, probable, k=options.k, by=options.by))


def _told(snapshot: Snapshot, collection: Collection, spans: list[Span]) -> tuple[list[tuple[Hit, int]], str]:
    peaks = [span.peak for span in spans]
    return list(zip(hits_of(snapshot, collection, spans), peaks, strict=True)), collection.trouble


def _may_leave_fewer(options: SearchOptions) -> bool:
    """Whether something the user asked for may leave less than there is."""
    filters = (options.where, options.after, options.before, options.min_score)
    return filters != (None,) * len(filters) or options.dedupe or bool(options.then)
