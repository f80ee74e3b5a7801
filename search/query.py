"""What the user asked, as a unit vector in the store's space."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from vidx import encoders
from vidx.config import SearchOptions
from vidx.encoders import VideoTextEncoder
from vidx.errors import InputError, MediaError, StoreError, StoreMissing
from vidx.schema.heads import read_head
from vidx.schema.records import printable
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.schema.store import Store

_NEGATIVE_SHARE = 0.5  # docs/explanation/search.md has what others gave


@dataclass(frozen=True)
class Example:
    """A file to search by: a picture, a video as a whole, or the clip around `at_s` seconds of it."""

    path: Path
    at_s: float | None
    given: str


@dataclass(frozen=True)
class Asked:
    """What is looked for (`texts`, `examples`, labels `taught`), what is not (`unwanted`), what is to follow (`then`).

    Checked as far as words go. With nothing to look for, all that passes the filters is listed.
    """

    texts: tuple[str, ...]
    examples: tuple[Example, ...]
    taught: tuple[str, ...]
    unwanted: tuple[str, ...]
    then: tuple[str, ...]

    @property
    def is_listing(self) -> bool:
        return not (self.texts or self.examples or self.taught)

    def __str__(self) -> str:
        """As answers repeat it: a text alone as it is."""
        likes = [f"like {printable(os.fsencode(example.given))}" for example in self.examples]
        likes += [f"taught {label}" for label in self.taught]
        nots, thens = [f"not {text}" for text in self.unwanted], [f"then {text}" for text in self.then]
        return "; ".join([*self.texts, *likes, *nots, *thens])


def settled_space(store: Store, encoder: str | None) -> Space:
    """The space of an encoder, else the store's default. Raises StoreMissing where nothing has been indexed."""
    if encoder is not None:
        return store.find_space(encoders.known_as(encoder) if encoders.is_trained_folder(encoder) else encoder)
    name = store.facts().default_space
    if name is None:
        raise StoreMissing(f"nothing is indexed yet in {store.path}", hint="run `vidx index FOLDER` first")
    return store.space(name)


def check_asked(texts: Sequence[str], options: SearchOptions) -> Asked:
    """The parts of a query. Raises InputError where there is nothing to look for, for no text and for no file."""
    if not texts and not options.like and not options.taught:
        if (options.where, options.after, options.before) == (None, None, None):
            if options.tag is not None:
                return check_asked([options.tag], options)
            raise InputError("nothing to look for", hint="give TEXT, or --like FILE, or a filter with --where")
        if options.unwanted or options.then or options.dedupe or options.rerank or options.min_score is not None:
            raise InputError("a filter alone has no scores", hint="give TEXT as well, or leave out what needs scores")
    if options.tag_set is not None and options.where is None:
        raise InputError("--tag-set is of --where", hint="give a condition on label or probability")
    if options.then and options.dedupe:
        raise InputError("--dedupe compares single moments, which --then does not give", hint="leave one out")
    return Asked(
        texts=tuple(check_text(text) for text in texts),
        examples=tuple(check_example(given) for given in options.like),
        taught=options.taught,
        unwanted=tuple(check_text(text) for text in options.unwanted),
        then=tuple(check_text(text) for text in options.then),
    )


def check_text(text: str) -> str:
    """The query without white space around it. Raises InputError where nothing is left, or for what is no text."""
    if not any(c.isprintable() and not c.isspace() for c in text):
        raise InputError("the query is empty", hint='say what to look for: vidx search "a dog in the snow"')
    if not text.isascii() and text.encode("utf-8", "replace").decode() != text:
        raise InputError("the query is not readable text", hint="check the terminal's encoding; vidx takes UTF-8")
    return text.strip()


def check_example(given: str) -> Example:
    """FILE or FILE@SECONDS; a file whose name is the whole of it comes first. Raises InputError where there is none."""
    name, at, seconds = given.rpartition("@")
    at_s = _seconds(seconds) if at and not os.path.exists(given) else None
    path = given if at_s is None else name
    if not os.path.isfile(path):
        shown = printable(os.fsencode(given))
        what = f"{shown} is no file" if os.path.exists(path) else f"no file {shown!r}"
        raise InputError(f"--like: {what}", hint="name a picture or a video, or VIDEO@SECONDS")
    return Example(Path(path), at_s, given)


def query_vectors(snapshot: Snapshot, space: Space, asked: Asked) -> list[np.ndarray]:
    """float32 (dim,), unit norm, for each event; the first is the sum of what is looked for less half of what is not.

    Raises InputError for a file that can't be used, StoreError where the encoder here did not make the space.
    """
    wanted = [_example_vector(snapshot, space, example) for example in asked.examples]
    wanted += [read_head(snapshot.store, space.name, label).direction for label in asked.taught]
    texts = [*asked.texts, *asked.unwanted, *asked.then]
    vectors = iter(encoder_of(space).encode_text(texts) if texts else ())
    wanted += islice(vectors, len(asked.texts))
    unwanted = list(islice(vectors, len(asked.unwanted)))
    first = wanted[0] if len(wanted) == 1 else _unit(np.sum(wanted, axis=0))
    if unwanted:
        first = _unit(first - _NEGATIVE_SHARE * _unit(np.sum(unwanted, axis=0)))
    return [first, *vectors]


def encoder_of(space: Space) -> VideoTextEncoder:
    """The encoder of a space. Raises StoreError where the one here is not the one that made it."""
    spec = encoders.of_space(space)
    if spec.space.name != space.name:
        raise StoreError(
            f"the store was indexed with other weights or settings of {space.encoder} ({space.name})",
            hint=f"this vidx would make {spec.space.name}; use the version that indexed it, or index again",
        )
    return encoders.build(spec)


def _example_vector(snapshot: Snapshot, space: Space, example: Example) -> np.ndarray:
    if example.at_s is not None and (stored := _stored_vector(snapshot, space, example)) is not None:
        return stored
    from vidx.indexer.frames import clip_at, still  # pulls in decoding, which most searches do without

    try:
        frames = still(example.path, space)
        if frames is not None and example.at_s is not None:
            raise InputError(f"--like: {example.path} is a picture, without seconds", hint="leave out the @SECONDS")
        if frames is None:
            frames = clip_at(example.path, example.at_s, space)
    except MediaError as error:
        raise InputError(f"--like: {error}", hint=error.hint) from error
    encoder = encoder_of(space)
    vectors = encoder.encode_video(frames[None])
    encoders.check_vectors(vectors, frames[None], space.encoder)
    vector: np.ndarray = vectors[0]
    return vector


def _stored_vector(snapshot: Snapshot, space: Space, example: Example) -> np.ndarray | None:
    """The vector of the clip of an indexed file, unchanged since, whose middle is nearest; None where none holds it."""
    facts = os.stat(example.path)
    rows = snapshot.rows(
        f"SELECT c.vector FROM {snapshot.clips(space.name)} c JOIN files f USING (video_id)"
        " WHERE f.path_bytes IN ($absolute, $real) AND f.size = $size AND f.mtime_ns = $mtime_ns"
        " AND c.start_s <= $at_s AND $at_s <= c.end_s"
        " ORDER BY abs((c.start_s + c.end_s) / 2 - $at_s), c.clip_id LIMIT 1",
        {
            "absolute": os.fsencode(os.path.abspath(example.path)),
            "real": os.fsencode(os.path.realpath(example.path)),
            "size": facts.st_size,
            "mtime_ns": facts.st_mtime_ns,
            "at_s": example.at_s,
        },
    )
    return np.array(rows[0][0], np.float32) if rows else None


def _seconds(text: str) -> float | None:
    """A time in a video; None for what is no number from 0."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _unit(vector: np.ndarray) -> np.ndarray:
    """Raises InputError where nothing is left of a sum."""
    norm = float(np.linalg.norm(vector))
    if norm < 1e-6:
        raise InputError("the parts of the query cancel each other out", hint="leave one out")
    scaled: np.ndarray = (vector / norm).astype(np.float32)
    return scaled
