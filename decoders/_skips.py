"""Which pictures a decoder may leave out: those that nobody asked for and that no other picture is made from.

FFmpeg looks at `skip_frame` (avcodec.h, AVDiscard) packet by packet, so it may change on the way through a file.
"""

from __future__ import annotations

from collections.abc import Iterable

import av
import numpy as np

from vidx.decoders._disposable import disposable_in


class Skips:
    """Tells a decoder before each packet what it need not make a picture of, and remembers what it left out.

    mode `exact`: pictures that are not asked for and that no other is made from; what is asked for is the same to the
    last bit. `fast`: all that no other is made from, asked for or not. B-frames that others are made from are kept:
    without them what follows falls apart, down to 13 dB.
    """

    def __init__(self, mode: str, ticks: np.ndarray, codec: av.VideoCodecContext) -> None:
        """`ticks` int64 (n,), sorted: when the frames of the stream are presented."""
        self._is_exact, self._ticks, self._is_disposable = mode == "exact", ticks, disposable_in(codec)
        self._needed: set[int] | None = None
        self._behind_needed = False
        self._top = ticks[0] - 1  # the latest tick decoded since the last key frame
        self._left_out: set[int] = set()
        self._key: int | None = None  # that the decoder started at
        self._damaged_key: int | None = None

    @property
    def is_known(self) -> bool:
        """Whether what is left out is known exactly, so that any other frame that does not come is missing."""
        return self._is_exact or self._is_disposable is not None

    @property
    def is_asked(self) -> bool:
        return self._needed is not None

    def ask_for(self, ticks: Iterable[int]) -> None:
        """From now on only the frames on screen at these ticks are needed; before the first call all are.

        The second field of a frame may have a tick and a packet of its own, so the frame before each in order of
        presentation is needed too.
        """
        places = np.searchsorted(self._ticks, np.fromiter(ticks, np.int64), side="right") - 1
        places = np.maximum(np.union1d(places, places - 1), 0)
        self._needed = set(self._ticks[places].tolist())

    def begin(self, key: int) -> None:
        """The decoder starts anew at a key frame."""
        self._key = key
        self._left_out.clear()
        self._behind_needed, self._top = False, self._ticks[0] - 1

    def decode_all_here(self) -> bool:
        """Leave nothing out when the decoder starts at the same key frame again; False where that would be no news.

        What a damaged frame looks like may hang on all frames before it.
        """
        may_differ = self._is_exact and self.is_asked and self._key != self._damaged_key
        self._damaged_key = self._key
        return may_differ

    def tell(self, codec: av.VideoCodecContext, packet: av.Packet) -> None:
        """Set up the decoder for the next packet; one behind a needed one may be its second field."""
        if packet.pts is None or packet.size == 0:
            codec.skip_frame = "DEFAULT"
            return
        is_needed = self._needed is None or packet.pts in self._needed or self._behind_needed
        self._behind_needed = self._needed is not None and packet.pts in self._needed
        if self._is_exact:
            skips = (
                not is_needed
                and self._key != self._damaged_key
                and self._is_disposable is not None
                and self._is_disposable(packet)
            )
            codec.skip_frame = "NONREF" if skips else "DEFAULT"
        else:
            skips = self._may_go(packet)
            codec.skip_frame = "NONREF"
        if skips:
            self._left_out.add(packet.pts)

    def _may_go(self, packet: av.Packet) -> bool:
        """Whether the decoder may leave a picture out as one that no other is made from."""
        is_between = packet.pts < self._top  # as those predicted from both sides are
        self._top = max(self._top, packet.pts)
        return is_between if self._is_disposable is None else self._is_disposable(packet)

    def first_missing(self, first: int, stop: int) -> int | None:
        """The first place in [first, stop) whose frame was not left out, though it did not come; None for none."""
        missing = None
        for place in range(first, stop):
            tick = int(self._ticks[place])
            if tick in self._left_out:
                self._left_out.remove(tick)
            elif missing is None:
                missing = place
        return missing
