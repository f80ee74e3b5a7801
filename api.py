"""vidx from Python: what the command line does, as functions."""

from __future__ import annotations

import difflib
import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vidx.config import IndexOptions, SearchOptions, TagOptions, default_store
from vidx.errors import InputError
from vidx.schema.records import Answer

if TYPE_CHECKING:
    from vidx.search.reader import Reader
    from vidx.search.tags import Tagged

_Options = TypeVar("_Options", IndexOptions, SearchOptions, TagOptions)


class Archive:
    """A store and what can be done with it; `vidx.open` gives one. Methods raise VidxError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def index(self, folder: str | Path, **options: Any) -> dict[str, int]:
        """Bring the store up to date with the videos below a folder; options are the fields of IndexOptions.

        Those that are not given come from the store's config.toml.

        Returns the account: how many files were indexed, linked, unchanged, failed, partial, no video, skipped or
        missing, and how many clips are new. A new store gets the encoder `conse` unless another is named: nothing is
        downloaded. Raises VidxError.
        """
        from vidx.indexer.run import Done, check_encoders, index_archive
        from vidx.indexer.walk import absolute_root, is_online, no_files
        from vidx.schema.store import Store
        from vidx.search.rebuild import keep_up
        from vidx.settings import index_options

        root = absolute_root(_path("folder", folder))
        _options(IndexOptions, options)  # names and values, before the file's are looked at
        if not self.path.exists() and not is_online(root):  # which must not leave an empty store behind
            raise no_files(root)
        chosen = index_options(self.path, root, options)
        spaces = check_encoders(self.path, chosen)
        store = Store.create(self.path)
        for event in index_archive(root, store, chosen):
            if isinstance(event, Done):
                for space in spaces:
                    keep_up(store, space, lambda _: None)
                return event.counts
        raise AssertionError("an index run ends with its account")

    def search(self, *texts: str, **options: Any) -> Answer:
        """Find moments by words, by `like` examples, or by both; options are the fields of SearchOptions.

        Raises VidxError.
        """
        from vidx.schema.store import Store
        from vidx.search.run import search

        if strange := [text for text in texts if not isinstance(text, str)]:
            raise InputError(f"{strange[0]!r} is no text to look for", hint="files to search by are `like`")
        chosen = _options(SearchOptions, options)
        return search(Store.open(self.path), texts, chosen)

    def tag(self, labels: str | Path | None = None, **options: Any) -> Tagged:
        """Label all clips, from stored vectors; options are the other fields of TagOptions.

        `labels` are a published set, or a file of them. The rows become the set of tags of that name, in place of the
        one before. Raises VidxError.
        """
        from vidx.schema.store import Store
        from vidx.search.tags import tag

        return tag(Store.open(self.path), _options(TagOptions, {"labels": labels, **options}))

    def reader(self, encoder: str | None = None, *, gpu: bool = False) -> Reader:
        """The vectors of an encoder's space, else of the store's, held open for programs that ask many times.

        With `gpu` the index is held on the first GPU. Raises VidxError.
        """
        from vidx.schema.store import Store
        from vidx.search.query import settled_space
        from vidx.search.reader import Reader

        store = Store.open(self.path)
        return Reader(store, settled_space(store, encoder), gpu=gpu)


def open_archive(path: str | Path | None = None) -> Archive:
    """The archive whose store is at `path`, else at VIDX_STORE, else in the user's data folder.

    A store that is not there yet is made by the first `index`.
    """
    return Archive(_path("path", path) if path is not None else default_store())


def _path(name: str, given: Any) -> Path:
    if not isinstance(given, str | os.PathLike):
        raise InputError(f"{name} can't be {given!r}", hint="give a str or a Path")
    return Path(given)


def _options(kind: type[_Options], given: dict[str, Any]) -> _Options:
    """Raises InputError for an option that there is not."""
    known = [field.name for field in fields(kind)]
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known) or known
            raise InputError(f"there is no option {name!r}", hint=f"choose from: {', '.join(close)}")
    return kind(**given)
