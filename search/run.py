"""The stages of `vidx search` in order."""

from __future__ import annotations

import time
from dataclasses import replace

from vidx.config import SearchOptions
from vidx.schema.condition import matching_clips
from vidx.schema.records import Answer
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.search.query import check_asked, encoder_of, query_vector, settled_space
from vidx.search.rerank import check_rerank, rerank
from vidx.search.retrieve import peak_thumbnails, search_vector


def search(store: Store, text: str | None, options: SearchOptions) -> Answer:
    """Answer one query, of words, of examples or of both, over everything committed. Raises VidxError."""
    asked = check_asked(text, options)
    space = settled_space(store, options.encoder)
    if options.rerank:
        check_rerank(encoder_of(space), text)
    began = time.perf_counter()
    snapshot = Snapshot(store)
    kept = None if options.where is None else matching_clips(snapshot, space.name, options.where)
    filtered = time.perf_counter()
    vector = query_vector(snapshot, space, asked)
    loaded = time.perf_counter()
    wanted = replace(options, k=max(options.k, options.rerank))
    ranked = list(zip(*search_vector(snapshot, space, vector, wanted, kept), strict=True))
    if options.rerank and text is not None:
        ranked = rerank(store, space, encoder_of(space), text, ranked, options.rerank)
    hits, peaks = [hit for hit, _ in ranked[: options.k]], [peak for _, peak in ranked[: options.k]]
    ended = time.perf_counter()
    return Answer(
        store=str(store.path),
        query=str(asked),
        space=space.name,
        load_ms=round((loaded - filtered) * 1000, 1),
        took_ms=round((filtered - began + ended - loaded) * 1000, 1),
        total=len(hits) if kept is not None and len(hits) < options.k else None,
        hits=hits,
        thumbnails=peak_thumbnails(snapshot, space, peaks) if options.thumbnails else [],
    )
