"""What is the same for decoders that bring an FFmpeg of their own: PyAV's demuxer looks at the file before them.

It gives times, facts and damage, so nothing that it refuses reaches them; from them come pictures alone, by number.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

import av
import numpy as np

from vidx.decoders._display import rotation_of
from vidx.decoders._facts import Picture, facts_of
from vidx.decoders._packets import family_of, first_video, open_container, packets_of
from vidx.decoders._picture import PyAVPicture
from vidx.decoders._sizes import keeps_its_size
from vidx.decoders._timeline import read_packet_table
from vidx.errors import NotTrusted, Unreadable

MOST_PX = 1080  # short side of a frame as it is decoded: they are RGB, and several are kept


class ForeignVideo:
    """A video that PyAV's demuxer has read to its end; see `vidx.decoders.OpenVideo`."""

    mode = "exact"
    in_parts = False

    def __init__(self, path_bytes: bytes, decoder: str, containers: Collection[str], alive: Callable[[], None]) -> None:
        """Raises NotVideo, Unreadable, and NotTrusted for what the decoder, named for people, may get wrong."""
        self._path, self._alive = path_bytes, alive
        with open_container(path_bytes) as container:
            stream, self._family = first_video(container), family_of(container)
            if self._family not in containers:
                raise NotTrusted(f"{decoder} can't be trusted with a container of this kind ({self._family})")
            self._n_streams = len(container.streams.video)
            rotation = rotation_of(path_bytes, stream.id) if self._family == "mov" else 0
            if rotation is None or "rotate" in stream.metadata:
                raise NotTrusted(f"{decoder} can't be trusted to turn its pictures upright")
            table = read_packet_table(container, stream, path_bytes, alive)
            coded = Picture(stream.codec_context.pix_fmt or "", stream.width, stream.height, rotation)
            self.facts = facts_of(container, stream, table.line, coded, path_bytes)
        self.timeline, self._n_packets = table.line, table.n_packets
        self.damage = table.troubles[0].reason if table.troubles else None
        self.first_bad_s = table.troubles[0].at_s if table.troubles else None
        with open_container(path_bytes) as container:
            stream = first_video(container)
            packets = self._clear(packets_of(container, stream))
            self._keeps_its_size = keeps_its_size(packets, stream.codec_context)
            for _ in packets:  # the rest of them
                pass

    def _clear(self, packets: Iterable[av.Packet]) -> Iterator[av.Packet]:
        for packet in packets:
            if packet.has_sidedata("encryption_info"):  # the noise would be shown
                raise Unreadable("its pictures are encrypted")
            self._alive()
            yield packet

    def _number_at(self, tick: int) -> int:
        """The number of the frame on screen."""
        return max(0, int(np.searchsorted(self.timeline.ticks, tick, side="right")) - 1)

    def _as_coded(self, upright: np.ndarray, number: int) -> PyAVPicture:
        """Frame `number` from uint8 (h, w, 3) that the decoder has turned upright."""
        turns = self.facts.rotation // 90
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.rot90(upright, -turns)), format="rgb24")
        return PyAVPicture(frame, int(self.timeline.ticks[number]), self.facts.sar_num / self.facts.sar_den, turns)

    def _note_damage(self, number: int) -> None:
        """Note that errors were logged; frames come out later than their data go in, so it lies here or near."""
        at_s = float(self.timeline.seconds(int(self.timeline.ticks[number])))
        self.damage = self.damage or "decoding: errors in the data of a picture"
        self.first_bad_s = at_s if self.first_bad_s is None else min(at_s, self.first_bad_s)
