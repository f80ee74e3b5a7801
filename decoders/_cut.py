"""Whether the bytes of a file are those its container speaks of: files that were cut, and breaks inside.

A demuxer passes over both without a word. Most containers are chains, in which every element says where the next one
begins. The chain is followed beside the demuxer, over bytes that it has just read. There is a flaw where the chain
leads beyond the end of the file, or to bytes that begin no element although the container goes on behind them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vidx.decoders._bytes import Bytes, Chain, ChainBroken
from vidx.decoders._chains import chain_of, ends_in_a_packet

_STEPS_PER_SIGN_OF_LIFE = 4096
_HEAD_BYTES = 64  # a packet's position lies at most this far behind the beginning of its element


@dataclass(frozen=True)
class Flaw:
    """What is wrong with the bytes of a file.

    `inside`: the container goes on behind that place. Not `certain`: it may be that only foreign bytes follow its end.
    """

    reason: str
    inside: bool
    certain: bool = True


class Inspector:
    """Follows the chain of one file up to where the demuxer has read. Raises OSError as the disk does."""

    def __init__(self, path_bytes: bytes, family: str, alive: Callable[[], None]) -> None:
        self._read, self._family, self._alive = Bytes(path_bytes), family, alive
        self._chain = self._chain_if_any()
        self._at = self._chain.start if self._chain else 0
        self._element = self._latest_packet = self._steps = 0
        self._break: ChainBroken | None = None
        self._track: int | None = None

    def reach(self, position: int) -> bool:
        """A packet was read that begins at this byte. Whether the chain is broken before it."""
        self._latest_packet = max(self._latest_packet, position)
        self._follow(position)
        return self._broken_inside()

    def finish(self) -> Flaw | None:
        """Follow the chain to its end and say what is wrong with it."""
        if self._chain is None:
            is_cut = self._family == "mpegts" and ends_in_a_packet(self._read)
            return Flaw(_CUT, inside=False) if is_cut else None
        size, stated = self._read.size, self._chain.stated_end
        self._follow(size)
        if self._break is not None and self._break.another:
            return Flaw("another file follows in this one; only the first is used", inside=False)
        if self._broken_inside():
            return Flaw(f"the container is damaged at byte {self._element}", inside=True)
        if stated is not None and stated > size:
            return Flaw(f"the file is cut: it announces {stated} bytes and holds {size}", inside=False)
        if self._break is None:
            return Flaw(_CUT, inside=False) if self._at > size else None
        if stated is not None and self._element >= stated:
            return None
        certain = self._break.inside or stated is not None
        return Flaw(f"the container is damaged from byte {self._element} on", inside=False, certain=certain)

    def frames_passed(self) -> int:
        """Frames that the chain has passed of the track of the first packet; 0 where it does not tell."""
        if self._chain is None:
            return 0
        frames = self._chain.frames
        if self._track is None:
            self._track = frames.latest_track
        return frames.counts[self._track]

    def close(self) -> None:
        self._read.close()

    def _chain_if_any(self) -> Chain | None:
        try:
            return chain_of(self._read, self._family)
        except ChainBroken:
            return None

    def _broken_inside(self) -> bool:
        """Whether the demuxer found packets behind the place where the chain broke or led beyond the file."""
        if self._chain is None or self._chain.coarse:
            return False
        is_broken = self._break is not None or self._at > self._read.size
        return is_broken and self._latest_packet > self._element + _HEAD_BYTES

    def _follow(self, to: int) -> None:
        while self._chain is not None and self._break is None and self._at < to:
            self._element = self._at
            try:
                self._at = self._chain.step(self._at)
            except ChainBroken as error:
                self._break = error
            self._steps += 1
            if self._steps % _STEPS_PER_SIGN_OF_LIFE == 0:
                self._alive()


_CUT = "the file is cut: its last part is missing"
