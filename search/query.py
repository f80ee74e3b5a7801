"""What the user asked, as a unit vector in the store's space."""

from __future__ import annotations

import numpy as np

from vidx import encoders
from vidx.errors import InputError, StoreError, StoreMissing
from vidx.schema.spaces import Space
from vidx.schema.store import Store


def settled_space(store: Store) -> Space:
    """The store's default space. Raises StoreMissing where nothing has been indexed."""
    name = store.facts().default_space
    if name is None:
        raise StoreMissing(f"nothing is indexed yet in {store.path}", hint="run `vidx index FOLDER` first")
    return store.space(name)


def check_text(text: str) -> str:
    """The query without white space around it. Raises InputError where nothing is left, or for what is no text."""
    if not any(c.isprintable() and not c.isspace() for c in text):
        raise InputError("the query is empty", hint='say what to look for: vidx search "a dog in the snow"')
    if not text.isascii() and text.encode("utf-8", "replace").decode() != text:
        raise InputError("the query is not readable text", hint="check the terminal's encoding; vidx takes UTF-8")
    return text.strip()


def text_vector(text: str, space: Space) -> np.ndarray:
    """float32 (dim,), unit norm. Raises StoreError where the encoder here is not the one that made the space."""
    encoder = encoders.build(space.encoder)
    if encoder.spec.space.name != space.name:
        raise StoreError(
            f"the store was indexed with other weights or settings of {space.encoder} ({space.name})",
            hint=f"this vidx would make {encoder.spec.space.name}; use the version that indexed it, or index again",
        )
    vector: np.ndarray = encoder.encode_text([text])[0]
    return vector
