"""The stages of `vidx search` in order."""

from __future__ import annotations

import time

from vidx.config import SearchOptions
from vidx.schema.records import Answer
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.search.query import check_text, settled_space, text_vector
from vidx.search.retrieve import peak_thumbnails, search_vector


def search(store: Store, text: str, options: SearchOptions) -> Answer:
    """Answer one text query over everything committed. Raises VidxError."""
    text = check_text(text)
    space = settled_space(store)
    began = time.perf_counter()
    vector = text_vector(text, space)
    loaded = time.perf_counter()
    snapshot = Snapshot(store)
    hits, peaks = search_vector(snapshot, space, vector, options)
    ended = time.perf_counter()
    return Answer(
        store=str(store.path),
        query=text,
        space=space.name,
        load_ms=round((loaded - began) * 1000, 1),
        took_ms=round((ended - loaded) * 1000, 1),
        hits=hits,
        thumbnails=peak_thumbnails(snapshot, space, peaks) if options.thumbnails else [],
    )
