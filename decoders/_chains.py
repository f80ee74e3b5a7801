"""How the elements of each container follow one another, as far as is needed to see where a file breaks off.

Elements that only hold others are entered, so that the chain is flat and its steps are short.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

from vidx.decoders._bytes import Bytes, Chain, ChainBroken, Frames

_BLOCK_BYTES = 2**20


def chain_of(read: Bytes, family: str) -> Chain | None:
    """The chain of a file whose container FFmpeg calls `family`; None where none is known."""
    reader = _READERS.get(family)
    return reader(read) if reader else None


# Matroska and WebM (RFC 9559): numbers tell their own length by the zero bits they begin with.

_EBML, _SEGMENT, _CLUSTER, _BLOCK_GROUP = 0x1A45DFA3, 0x18538067, 0x1F43B675, 0xA0
_BLOCKS = (0xA3, 0xA1)
_MATROSKA_PARTS = {
    *(0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367),  # children of the segment
    *(0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xAF),  # of a cluster
    *(0xA1, 0xA2, 0x75A1, 0x9B, 0xFA, 0xFB, 0xFD, 0xA4, 0x75A2, 0x8E, 0xC8),  # of a block group
    *(0xEC, 0xBF),  # padding and checksums, anywhere
}


def _matroska(read: Bytes) -> Chain | None:
    identifier, size, at = _ebml_head(read, 0)
    if identifier != _EBML or size is None:
        return None
    identifier, size, start = _ebml_head(read, at + size)
    if identifier != _SEGMENT:
        return None
    frames = Frames()

    def step(at: int) -> int:
        identifier, size, content = _ebml_head(read, at)
        if content > read.size:
            return content
        if identifier == _CLUSTER and size is not None and not _ebml_checksum_holds(read, content, size):
            raise ChainBroken(inside=True)
        if identifier in (_CLUSTER, _BLOCK_GROUP, _SEGMENT):
            return content
        if identifier == _EBML:
            raise ChainBroken(another=True)
        if size is None or identifier not in _MATROSKA_PARTS:
            raise ChainBroken
        if identifier in _BLOCKS and size:
            frames.note(read.number(content, 1, "big"))
        return content + size

    return Chain(start, step, frames, None if size is None else start + size)


def _ebml_head(read: Bytes, at: int) -> tuple[int, int | None, int]:
    """Identifier, size (None: not stated) and the first byte of the content."""
    head = read(at, 12)
    if not head or not head[0] or (id_length := 9 - head[0].bit_length()) > 4:
        raise ChainBroken
    if len(head) <= id_length:
        return 0, 0, read.size + 1  # a head that was cut
    if not (first := head[id_length]):
        raise ChainBroken
    length = 9 - first.bit_length()
    mask = (1 << 7 * length) - 1
    size = int.from_bytes(head[id_length : id_length + length], "big") & mask
    return int.from_bytes(head[:id_length], "big"), None if size == mask else size, at + id_length + length


def _ebml_checksum_holds(read: Bytes, at: int, size: int) -> bool:
    """Whether content that begins with a CRC-32 element has that checksum; content without one passes."""
    head = read(at, 6)
    if head[:2] != b"\xbf\x84" or at + size > read.size:
        return True
    checksum = 0
    for place in range(at + 6, at + size, _BLOCK_BYTES):
        checksum = zlib.crc32(read(place, min(_BLOCK_BYTES, at + size - place)), checksum)
    return checksum == int.from_bytes(head[2:], "little")


# AVI: RIFF chunks, several RIFF lists behind one another in large files (OpenDML).


def _avi(read: Bytes) -> Chain | None:
    end: int | None = 0
    while end is not None and read(end, 4) == b"RIFF":
        size = read.number(end + 4, 4, "little")
        end = end + 8 + size + size % 2 if size not in (0, 0xFFFFFFFF) else None  # not stated while it was recorded
    frames = Frames()

    def step(at: int) -> int:
        head = read(at, 8)
        if not _is_printable(head[:4]):
            raise ChainBroken
        if head[:4] in (b"RIFF", b"LIST"):
            return at + 12
        size = int.from_bytes(head[4:], "little")
        if size and head[2:4] in (b"dc", b"db") and head[:2].isdigit():
            frames.note(int(head[:2]))
        behind = at + 8 + size
        if size % 2 == 0 or behind == read.size:
            return behind
        # Chunks of odd length are followed by a byte of padding, which some programs forget.
        unpadded = _is_printable(read(behind, 4)) and not _is_printable(read(behind + 1, 4))
        return behind if unpadded else behind + 1

    return Chain(0, step, frames, end if end is None else end - (end == read.size + 1)) if end != 0 else None


def _is_printable(name: bytes) -> bool:
    return len(name) == 4 and all(0x20 <= letter < 0x7F for letter in name)


# MP4 and QuickTime (ISO 14496-12): boxes at the top level.

_KNOWN_BOXES = frozenset(
    b"ftyp moov mdat moof mfra free skip wide uuid styp sidx ssix meta udta prft emsg pdin pnot".split()
)


def _mov(read: Bytes) -> Chain | None:
    seen: list[bytes] = []

    def step(at: int) -> int:
        head = read(at, 16)
        size, name = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        elif size == 0 and name in _KNOWN_BOXES:
            return read.size
        if size < 8 or (at + size > read.size and name not in _KNOWN_BOXES):
            raise ChainBroken(inside=b"moof" in seen and b"mdat" in read(at, _BLOCK_BYTES))
        if name == b"moov" and seen == [b"moov"]:  # between fragments it may be repeated
            raise ChainBroken(another=True)
        if name in (b"moov", b"moof") and name not in seen:
            seen.append(name)
        return at + size

    return Chain(0, step, coarse=True)


# FLV: tags of sound, picture and script, each followed by its own length.


def _flv(read: Bytes) -> Chain | None:
    def step(at: int) -> int:
        head = read(at, 4)
        if head[:3] == b"FLV":
            raise ChainBroken(another=True)
        if len(head) < 4 or head[0] & 0x1F not in (8, 9, 15, 18):
            raise ChainBroken
        behind = at + 11 + int.from_bytes(head[1:], "big")
        return behind if behind == read.size else behind + 4

    return Chain(read.number(5, 4, "big") + 4, step) if read(0, 3) == b"FLV" else None


# Ogg (RFC 3533): pages with a checksum, numbered for each stream. FFmpeg leaves out a page whose checksum is wrong.

_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg(read: Bytes) -> Chain | None:
    latest: dict[bytes, int] = {}

    def step(at: int) -> int:
        head = read(at, 27)
        if len(head) < 27 or head[:4] != b"OggS":
            raise ChainBroken
        length = 27 + head[26] + sum(read(at + 27, head[26]))
        if at + length > read.size:
            return at + length
        stream, number = head[14:18], int.from_bytes(head[18:22], "little")
        if _ogg_checksum(read(at, length)) != int.from_bytes(head[22:26], "little"):
            raise ChainBroken(inside=True)
        if number != latest.get(stream, number - 1) + 1 and number != 0:
            raise ChainBroken(inside=True)
        latest[stream] = number
        return at + length

    return Chain(0, step) if read(0, 4) == b"OggS" else None


def _ogg_checksum(page: bytes) -> int:
    """The CRC of polynomial 0x04c11db7, highest bit first, which zlib has only mirrored."""
    mirrored = (page[:22] + bytes(4) + page[26:]).translate(_MIRRORED)
    return int(f"{zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF:032b}"[::-1], 2)


# ASF and WMV: a header with the size of the file, then packets of one size.

_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_ASF_BROADCAST = 1


def _asf(read: Bytes) -> Chain | None:
    data = read.number(16, 8, "little")
    properties = read(0, min(data, 2**20)).find(_ASF_FILE_PROPERTIES)
    if read(0, 16) != _ASF_HEADER or read(data, 16) != _ASF_DATA or properties < 0:
        return None
    stated_bytes = read.number(properties + 40, 8, "little")
    flags, packet_bytes, largest = (read.number(properties + offset, 4, "little") for offset in (88, 92, 96))
    broadcast, first, packet_count = flags & _ASF_BROADCAST, data + 50, read.number(data + 40, 8, "little")
    if packet_bytes != largest or not packet_bytes:
        return None
    end = first + packet_bytes * packet_count if packet_count and not broadcast else None
    mark = read(first, 1)

    def step(at: int) -> int:
        if end is not None and at >= end:
            if read(stated_bytes, 16) == _ASF_HEADER:
                raise ChainBroken(another=True)
            return max(at + 1, read.size)  # indexes, which nobody misses
        if read(at, 1) != mark:
            raise ChainBroken
        return at + packet_bytes

    return Chain(first, step, stated_end=stated_bytes if stated_bytes and not broadcast else None)


# MXF (SMPTE 377-1): keys of 16 bytes, lengths, values; the first partition knows where the last one begins.

_MXF_KEY = b"\x06\x0e\x2b\x34"


def _mxf(read: Bytes) -> Chain | None:
    def content_and_size(at: int) -> tuple[int, int]:
        head = read(at, 25)
        if len(head) < 25 or head[:4] != _MXF_KEY:
            raise ChainBroken
        count = head[16] & 0x7F if head[16] & 0x80 else 0
        size = int.from_bytes(head[17 : 17 + count], "big") if count else head[16]
        return at + 17 + count, size

    def step(at: int) -> int:
        return sum(content_and_size(at))

    content, _ = content_and_size(0)
    last_partition = read.number(content + 24, 8, "big")
    return Chain(0, step, stated_end=last_partition + 1 if last_partition else None)


# MPEG program streams (ISO 13818-1): packs and packets, an end code if they were not cut.

_PACK, _END = b"\0\0\1\xba", b"\0\0\1\xb9"


def _mpeg(read: Bytes) -> Chain | None:
    def step(at: int) -> int:
        head = read(at, 14).ljust(14, b"\0")
        if head[:4] == _PACK:
            return at + (14 + (head[13] & 7) if head[4] & 0xC0 == 0x40 else 12)  # else that of MPEG-1
        if head[:4] == _END:
            return at + 4
        if head[:3] != b"\0\0\1" or head[3] < 0xB9:
            raise ChainBroken
        return at + 6 + int.from_bytes(head[4:6], "big")

    return Chain(0, step) if read(0, 4) == _PACK else None


# MPEG transport streams (ISO 13818-1): packets of one size, which can be cut anywhere; only half a packet shows.


def ends_in_a_packet(read: Bytes) -> bool:
    """Whether a transport stream ends in the middle of a packet."""
    for packet_bytes, sync_at in ((188, 0), (192, 4), (204, 0)):
        incomplete = read.size // packet_bytes * packet_bytes + sync_at
        syncs = [sync_at + number * packet_bytes for number in range(5)] + [incomplete - packet_bytes]
        if all(read(at, 1) == b"G" for at in syncs):
            return read(incomplete, 1) == b"G"
    return False


_READERS: dict[str, Callable[[Bytes], Chain | None]] = {
    "matroska": _matroska,
    "avi": _avi,
    "mov": _mov,
    "flv": _flv,
    "ogg": _ogg,
    "asf": _asf,
    "mxf": _mxf,
    "mpeg": _mpeg,
}
