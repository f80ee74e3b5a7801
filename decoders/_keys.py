"""Key frames alone: found by seeking, decoded without the packets around them."""

from __future__ import annotations

import av
import numpy as np

from vidx.decoders._packets import packets_of
from vidx.schema.records import Timeline

_STEPS_BACK_S = (0.0, 0.5, 1.0, 2.0, 4.0)  # of the seek, where it lands behind the key frame: see vidx.decoders.pyav
_PACKETS_READ = 500  # behind where a seek lands


class NearestKey:
    """Finds the key frame nearest to a tick, of those that are shown."""

    def __init__(self, line: Timeline, most_s: float) -> None:
        """`most_s`: those farther away don't count."""
        self._keys = np.intersect1d(line.key_ticks, line.ticks)
        self._most = int(most_s / line.time_base)

    def to(self, tick: int) -> int | None:
        """Its tick, the earlier of two; None where none is near."""
        at = int(np.searchsorted(self._keys, tick))
        near = self._keys[max(0, at - 1) : at + 1]
        if not len(near):
            return None
        key = int(near[np.argmin(np.abs(near - tick))])
        return key if abs(key - tick) <= self._most else None


def decoded_key(container: av.container.InputContainer, stream: av.VideoStream, key: int) -> av.VideoFrame | None:
    """The key frame presented at tick `key`; None where a seek does not lead to it. Raises FFmpegError.

    The decoder is drained at once: it would hold the frame back until it has seen those to be shown before it.
    """
    codec, tick_s = stream.codec_context, float(stream.time_base or 1)
    for step_s in _STEPS_BACK_S:
        container.seek(max(0, key - int(step_s / tick_s)), stream=stream, backward=True)
        packet = _key_packet(container, stream, key)
        if packet is not None:
            frames = [*codec.decode(packet), *codec.decode(None)]
            codec.flush_buffers()
            return next((frame for frame in frames if frame.pts == key), None)
    return None


def _key_packet(container: av.container.InputContainer, stream: av.VideoStream, key: int) -> av.Packet | None:
    """The packet of that key frame, if it comes before any later one."""
    for number, packet in enumerate(packets_of(container, stream)):
        if packet.is_keyframe and packet.pts == key:
            return packet
        if number == _PACKETS_READ or packet.size == 0 or (packet.is_keyframe and (packet.pts or 0) > key):
            return None
    return None
