"""video_id: a fingerprint of a file's content, so that moved, renamed and copied files are known again."""

from __future__ import annotations

import hashlib
import os

WHOLE_BYTES = 64 * 2**20  # files up to here are read whole
BLOCK_BYTES = 64 * 2**10
BLOCKS = 64


def fingerprint(path_bytes: bytes) -> str:
    """`b1-` and the blake2b-128 of the content, in hex.

    Above 64 MB that of the size (8 bytes, little endian) and 64 blocks of 64 kB spread evenly, first and last bytes
    included. Raises OSError.
    """
    digest = hashlib.blake2b(digest_size=16)
    with open(path_bytes, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= WHOLE_BYTES:
            while block := file.read(2**20):
                digest.update(block)
        else:
            digest.update(size.to_bytes(8, "little"))
            for number in range(BLOCKS):
                file.seek((size - BLOCK_BYTES) * number // (BLOCKS - 1))
                digest.update(file.read(BLOCK_BYTES))
    return f"b1-{digest.hexdigest()}"
