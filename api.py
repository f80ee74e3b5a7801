"""vidx from Python: what the command line does, as functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidx.config import IndexOptions, SearchOptions, default_store
from vidx.schema.records import Answer


class Archive:
    """A store and what can be done with it; `vidx.open` gives one. Methods raise VidxError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def index(self, folder: str | Path, **options: Any) -> dict[str, int]:
        """Bring the store up to date with the videos below a folder; options are the fields of IndexOptions.

        Returns the account: how many files were indexed, linked, unchanged, failed, partial, no video, skipped or
        missing, and how many clips are new. A new store gets the encoder `conse` unless another is named: nothing is
        downloaded.
        """
        from vidx.indexer.run import Done, check_encoder, index_archive
        from vidx.schema.store import Store
        from vidx.search.query import settled_space
        from vidx.search.rebuild import keep_up

        chosen = IndexOptions(**options)
        check_encoder(self.path, chosen)
        store = Store.create(self.path)
        for event in index_archive(Path(folder), store, chosen):
            if isinstance(event, Done):
                keep_up(store, settled_space(store, chosen.encoder), lambda _: None)
                return event.counts
        raise AssertionError("an index run ends with its account")

    def search(self, *texts: str, **options: Any) -> Answer:
        """Find moments by words, by `like` examples, or by both; options are the fields of SearchOptions."""
        from vidx.schema.store import Store
        from vidx.search.run import search

        return search(Store.open(self.path), texts, SearchOptions(**options))


def open_archive(path: str | Path | None = None) -> Archive:
    """The archive whose store is at `path`, else at VIDX_STORE, else in the user's data folder.

    A store that is not there yet is made by the first `index`.
    """
    return Archive(Path(path) if path is not None else default_store())
