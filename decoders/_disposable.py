"""Which packets hold pictures that no other picture is made from, told by their first bytes.

H.264 (ITU-T H.264, 7.4.1: nal_ref_idc is 0) and H.265 (ITU-T H.265, table 7-1: sub-layer non-reference pictures), the
latter only where a stream has one sub-layer: pictures of others may be made from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import av

_MOST_UNITS = 256  # of a packet; more are not looked at
_LENGTHS_AT = {"h264": 4, "hevc": 21}  # of avcC and hvcC records (ISO/IEC 14496-15), bytes a length has, less one
_START = b"\0\0\1"


def disposable_in(codec: av.VideoCodecContext) -> Callable[[av.Packet], bool] | None:
    """A function that says of a packet whether all of its pictures are disposable; None where that can't be told."""
    name, record = codec.codec.canonical_name, codec.extradata or b""
    if name not in _LENGTHS_AT:
        return None
    has_lengths = record[:1] == b"\1" and len(record) > _LENGTHS_AT[name]
    length_bytes = (record[_LENGTHS_AT[name]] & 3) + 1 if has_lengths else 0
    if name == "hevc" and (not has_lengths or record[21] >> 3 & 7 != 1):
        return None
    is_slice, is_reference = (_is_h264_slice, _is_h264_reference) if name == "h264" else (_is_hevc_slice, _is_hevc_ref)

    def is_disposable(packet: av.Packet) -> bool:
        headers = _with_lengths(memoryview(packet), length_bytes) if length_bytes else _with_starts(bytes(packet))
        slices = [header for header in headers if is_slice(header)]
        return 0 < len(slices) < _MOST_UNITS and not any(map(is_reference, slices))

    return is_disposable


def _with_lengths(data: memoryview, length_bytes: int) -> Iterator[int]:
    """The first byte of each unit that follows its length."""
    at = 0
    for _ in range(_MOST_UNITS):
        if at + length_bytes >= len(data):
            return
        yield data[at + length_bytes]
        at += length_bytes + int.from_bytes(data[at : at + length_bytes], "big")


def _with_starts(data: bytes) -> Iterator[int]:
    """The first byte of each unit that follows a start code."""
    at = 0
    for _ in range(_MOST_UNITS):
        at = data.find(_START, at) + len(_START)
        if at < len(_START) or at >= len(data):
            return
        yield data[at]


def _is_h264_slice(header: int) -> bool:
    return 1 <= header & 31 <= 5


def _is_h264_reference(header: int) -> bool:
    return header >> 5 & 3 != 0


def _is_hevc_slice(header: int) -> bool:
    return header >> 1 & 63 < 32


def _is_hevc_ref(header: int) -> bool:
    unit_type = header >> 1 & 63
    return unit_type >= 16 or unit_type % 2 == 1
