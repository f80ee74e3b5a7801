"""The display matrix of an MP4 or MOV track, from its header: PyAV tells it of decoded frames only."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO

_HEADER_BYTES = 64 * 2**20  # a `moov` box larger than this is not read
_HOLDERS = {b"moov", b"trak"}
_ONE = 1 << 16
_ROTATIONS = {(_ONE, 0): 0, (0, -_ONE): 90, (-_ONE, 0): 180, (0, _ONE): 270}  # by the first two numbers of the matrix


def rotation_of(path_bytes: bytes, track_id: int) -> int | None:
    """Degrees counterclockwise that bring the pictures of a track upright; 0 where none are stated.

    None where they are no exact quarters. ISO/IEC 14496-12, 8.3.2 (tkhd). Raises OSError.
    """
    with open(path_bytes, "rb") as file:
        for kind, at, size in _boxes(file, 0, file.seek(0, 2)):
            if kind == b"moov" and size <= _HEADER_BYTES:
                return next(_rotations(file, at, at + size, track_id), 0)
    return 0


def _rotations(file: IO[bytes], start: int, end: int, track_id: int) -> Iterator[int | None]:
    for kind, at, size in _boxes(file, start, end):
        if kind in _HOLDERS:
            yield from _rotations(file, at, at + size, track_id)
        elif kind == b"tkhd":
            file.seek(at)
            content = file.read(size)
            wide = content[:1] == b"\1"  # 64-bit times
            if len(content) >= (96 if wide else 84):
                (found,) = struct.unpack_from(">I", content, 20 if wide else 12)
                if found == track_id:
                    yield _ROTATIONS.get(struct.unpack_from(">2i", content, 52 if wide else 40))


def _boxes(file: IO[bytes], start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, first byte of the content and its size, of boxes that follow one another."""
    while start + 8 <= end:
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8).ljust(8, b"\0"))
        head = 8
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8).ljust(8, b"\0"))
            head = 16
        elif size == 0:
            size = end - start
        if size < head:
            return
        yield kind, start + head, min(size, end - start) - head
        start += size
