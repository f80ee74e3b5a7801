"""Whether the size of the pictures may change inside a stream, told from the headers of its key frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import av

_H264_PARAMETERS, _HEVC_PARAMETERS = 7, 33  # types of unit
_HEADER = b""  # the size is that of the stream's header


def keeps_its_size(packets: Iterable[av.Packet], codec: av.VideoCodecContext) -> bool:
    """True where all key frames state one size; False where they don't, or where that can't be told of this codec."""
    sizes_in = _READERS.get(codec.codec.canonical_name)
    header, stated = codec.extradata or b"", set[bytes]()
    for packet in packets:
        if sizes_in is None or packet.has_sidedata("new_extradata"):
            return False
        if packet.is_keyframe and packet.size:
            stated.update(sizes_in(bytes(packet), header))
        if len(stated) > 1:
            return False
    return True


def _h264(data: bytes, header: bytes) -> Iterator[bytes]:
    """Parameter sets that the header (ISO 14496-15) does not have."""
    return _new_parameters(data, header, 4, lambda unit: unit[0] & 31 == _H264_PARAMETERS)


def _hevc(data: bytes, header: bytes) -> Iterator[bytes]:
    return _new_parameters(data, header, 21, lambda unit: unit[0] >> 1 & 63 == _HEVC_PARAMETERS)


def _new_parameters(data: bytes, header: bytes, length_at: int, is_set: Callable[[bytes], bool]) -> Iterator[bytes]:
    yield _HEADER
    if header[:1] != b"\1" or len(header) <= length_at:
        yield b"a header of another kind"
        return
    length_bytes, at = (header[length_at] & 3) + 1, 0
    while at + length_bytes < len(data):
        size = int.from_bytes(data[at : at + length_bytes], "big")
        unit = data[at + length_bytes : at + length_bytes + size]
        if unit and is_set(unit) and unit not in header:
            yield unit
        at += length_bytes + size


def _vp8(data: bytes, _header: bytes) -> Iterator[bytes]:
    """Width and height with their scale (RFC 6386, 9.1)."""
    yield data[6:10]


def _vp9(data: bytes, _header: bytes) -> Iterator[bytes]:
    """Width and height of the uncompressed header (VP9 bitstream specification, 6.2)."""
    bits = int.from_bytes(data[:16], "big")

    def take(first: int, count: int) -> int:
        return bits >> (128 - first - count) & ((1 << count) - 1)

    profile = take(2, 1) | take(3, 1) << 1
    at = 4 + (profile == 3)
    shows_again = take(at, 1)
    at += 4 + 24 + (profile >= 2)  # kind of frame, sync code, bit depth
    is_rgb = take(at, 3) == 7
    at += 3 + (profile in (1, 3)) + (0 if is_rgb else 1 + 2 * (profile in (1, 3)))
    yield _HEADER if shows_again else take(at, 32).to_bytes(4, "big")


def _prores(data: bytes, _header: bytes) -> Iterator[bytes]:
    """Width and height of the frame header (SMPTE RDD 36)."""
    yield data[16:20]


_READERS: dict[str, Callable[[bytes, bytes], Iterator[bytes]]] = {
    "h264": _h264,
    "hevc": _hevc,
    "vp8": _vp8,
    "vp9": _vp9,
    "prores": _prores,
}
