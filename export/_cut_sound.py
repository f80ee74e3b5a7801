"""The sound of a cut, sample by sample where it belongs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np

from vidx.export._cut_source import Source

_BITS_PER_S = 192_000
_RATES = {96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000}  # that AAC knows
_LAYOUTS = {"mono", "stereo", "3.0", "4.0", "5.0", "5.1", "7.1"}
_JITTER_S = 0.02  # containers that round times are at most so far off


class Sound:
    """What one stream of sound has between two instants of player time, beginning at 0."""

    def __init__(self, stream: Any, source: Source, zero_s: float, stop_s: float) -> None:
        context = stream.codec_context
        self._rate = context.sample_rate if context.sample_rate in _RATES else 48_000
        self._layout = context.layout.name if context.layout.name in _LAYOUTS else "stereo"
        if context.layout.nb_channels == 1:
            self._layout = "mono"
        self._resampler = av.AudioResampler(format="fltp", layout=self._layout, rate=self._rate)
        self._begin_s = zero_s + source.video.timeline.origin_s  # as the container counts
        self._n_samples = round((stop_s - zero_s) * self._rate)

    def stream_in(self, container: av.container.OutputContainer) -> Any:
        """A stream of AAC for it."""
        stream: Any = container.add_stream("aac", rate=self._rate, layout=self._layout)
        stream.codec_context.bit_rate = _BITS_PER_S
        return stream

    def frames(self, packets: Iterable[av.Packet]) -> Iterator[av.AudioFrame]:
        """Frames without holes: what is missing is silence, what comes twice is left out."""
        n_done = 0
        for place, samples in self._decoded(packets):
            if place is None or (n_done and abs(place - n_done) <= _JITTER_S * self._rate):
                place = n_done
            while n_done < min(place, self._n_samples):
                n_silent = min(place - n_done, self._n_samples - n_done, self._rate)
                yield self._frame(np.zeros((len(samples), n_silent), np.float32), n_done)
                n_done += n_silent
            kept = samples[:, max(0, n_done - place) :][:, : self._n_samples - n_done]
            if kept.shape[1]:
                yield self._frame(kept, n_done)
                n_done += kept.shape[1]
            if n_done >= self._n_samples:
                return

    def _decoded(self, packets: Iterable[av.Packet]) -> Iterator[tuple[int | None, np.ndarray]]:
        """Number of the first sample, counted from the beginning of the cut, and samples, float32 (channels, n)."""
        for packet in packets:
            try:
                frames: list[Any] = packet.decode()
            except av.error.FFmpegError:  # damage is silence
                continue
            for frame in frames:
                place = None
                if frame.pts is not None:
                    place = round((float(frame.pts * frame.time_base) - self._begin_s) * self._rate)
                for same in self._resampler.resample(frame):
                    yield place, same.to_ndarray()
                    place = None

    def _frame(self, samples: np.ndarray, place: int) -> av.AudioFrame:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self._layout)
        frame.sample_rate, frame.pts, frame.time_base = self._rate, place, Fraction(1, self._rate)
        return frame
