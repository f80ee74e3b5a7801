"""From the packets of a file to the times of its frames, and to what is wrong with either."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

from vidx.decoders._packets import STREAMED, Packets, family_of, first_video, open_container, packets_of
from vidx.decoders._runs import ClockRules, Run, runs_of_one_clock
from vidx.errors import Unreadable
from vidx.schema.records import Timeline

_BACK_S = 1.0  # a decode time that falls back by more than this is a new clock
_GAP_S = 10.0  # more than this between frames is looked at twice
_LEAP_S = 3600.0  # a longer leap ahead is a new clock, unless the container announces so long a video
_END_S = 30 * 24 * 3600.0  # or, broadcasts apart, announces no duration and ends by then
_DISTINCT = 0.9  # share of the frames that must have a time of their own, joined broadcasts apart
_LACK_S = 0.5  # missing at the end, against the announced duration, before foreign bytes there are called damage
_REORDERING = 16  # frames of delay between decoding and showing that codecs allow


class NothingShown(Unreadable):
    """The stream has packets, but none is to be shown, or it has none at all."""


@dataclass(frozen=True)
class Trouble:
    """Why something of a file can't be used, and the player time from which on that is so."""

    reason: str
    at_s: float


@dataclass(frozen=True)
class PacketTable:
    """What the packets of a stream tell."""

    line: Timeline
    troubles: list[Trouble]  # by time
    n_packets: int  # of the stream, hidden ones included
    in_order: bool  # packets are presented in the order of decoding, or so they say
    one_clock: bool  # False: other parts of the file have the same times again


def read_packet_table(
    container: av.container.InputContainer, stream: av.VideoStream, path_bytes: bytes, alive: Callable[[], None]
) -> PacketTable:
    """Read all packets of a stream. Raises NothingShown where none is shown, OSError as the disk does."""
    time_base = stream.time_base or Fraction(1, av.time_base)
    rules = _clock_rules(container, time_base)
    packets = Packets(container, stream, path_bytes, rules, alive)
    if packets.without_pts:
        packets.take_times(_times_by_decoding(path_bytes, alive))
    if not packets.ticks:
        raise NothingShown("no frame of its video stream is there to be shown")
    kept = runs_of_one_clock(packets.runs, rules)
    ticks, odd_behind = _ticks_of(packets, kept, rules)
    line = Timeline(
        ticks=ticks,
        key_ticks=_key_ticks_of(packets, kept, ticks[-1]),
        end_tick=int(ticks[-1]) + _last_duration(packets.runs[kept[-1]], ticks, stream, time_base),
        time_base=time_base,
        origin_s=min(_origin_s(container), float(ticks[0] * time_base)),
    )
    troubles = [
        *_troubles_of_clock(packets, kept, odd_behind, line),
        *_troubles_of_packets(packets, line),
        *_troubles_of_container(packets, container, _frames_of_index(packets.family, stream, path_bytes), line),
    ]
    troubles.sort(key=lambda trouble: trouble.at_s)
    return PacketTable(line, troubles, packets.count, packets.in_order, one_clock=len(kept) == len(packets.runs))


def _origin_s(container: av.container.InputContainer) -> float:
    """The container's start: the smallest over its streams, after edit lists.

    FFmpeg rounds it to microseconds; the stream it came from knows it exactly.
    """
    rounded_s = (container.start_time or 0) / av.time_base
    for stream in container.streams:
        if stream.start_time is not None and stream.time_base is not None:
            exact_s = float(stream.start_time * stream.time_base)
            if abs(exact_s - rounded_s) <= 1 / av.time_base:
                return exact_s
    return rounded_s


def _times_by_decoding(path_bytes: bytes, alive: Callable[[], None]) -> Iterator[int]:
    """Where packets carry no presentation times, the decoder derives them; nothing is trusted that it can't."""
    with open_container(path_bytes) as container:
        for packet in packets_of(container, first_video(container)):
            try:
                yield from (frame.pts for frame in packet.decode() if frame.pts is not None)
            except av.error.FFmpegError as error:
                if isinstance(error, MemoryError):
                    raise
                continue
            alive()


# Times


def _clock_rules(container: av.container.InputContainer, time_base: Fraction) -> ClockRules:
    end_s = 0.0
    if family_of(container) not in STREAMED:
        length_s = container.duration / av.time_base if container.duration else _END_S
        end_s = (container.start_time or 0) / av.time_base + length_s + _BACK_S
    back, gap, leap, end = (int(seconds / time_base) for seconds in (_BACK_S, _GAP_S, _LEAP_S, end_s))
    return ClockRules(back, gap, leap, end)


def _ticks_of(packets: Packets, kept: list[int], rules: ClockRules) -> tuple[np.ndarray, int | None]:
    """Ticks of the kept runs, sorted and unique; and the tick decoded before the first that can't be right, if any."""
    stored, odd_behind = np.frombuffer(packets.ticks, np.int64), None
    reordering = rules.gap + _REORDERING * _mean_step([packets.runs[number] for number in kept])
    parts = []
    for number in kept:
        run, ticks = packets.runs[number], stored[packets.ticks_of(number)]
        if run.first_dts is not None and run.last_dts is not None:
            possible = (ticks >= run.first_dts - reordering) & (ticks <= run.last_dts + reordering)
            if not possible.all() and possible.any():
                odd = int(np.argmin(possible))
                odd_behind = int(ticks[max(0, odd - 1)]) if odd_behind is None else odd_behind
                ticks = ticks[possible]
        parts.append(ticks)
    return _sorted_once(parts), odd_behind


def _sorted_once(parts: list[np.ndarray]) -> np.ndarray:
    """All values, each once; a single part is sorted where it lies, for there may be millions of frames."""
    values = parts[0] if len(parts) == 1 else np.concatenate(parts)
    values.sort()
    is_new = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=is_new[1:])
    return values if is_new.all() else values[is_new]


def _mean_step(runs: list[Run]) -> int:
    times = [time for run in runs for time in (run.first_dts, run.last_dts) if time is not None]
    return (max(times) - min(times)) // sum(run.packets for run in runs) if times else 0


def _key_ticks_of(packets: Packets, kept: list[int], last_tick: int) -> np.ndarray:
    stored = np.frombuffer(packets.key_ticks, np.int64)
    keys = _sorted_once([stored[packets.keys_of(number)] for number in kept])
    return keys[keys <= last_tick]


def _last_duration(run: Run, ticks: np.ndarray, stream: av.VideoStream, time_base: Fraction) -> int:
    """Ticks the last frame stays on screen: as its packet says, else as the one before, else by the average rate."""
    longest = max(int(ticks[-1] - ticks[0]), int(_LEAP_S / time_base))  # more is damage
    if run.top_tick == ticks[-1] and 0 < run.top_duration <= longest:
        return run.top_duration
    if len(ticks) > 1:
        return int(min(ticks[-1] - ticks[-2], max(np.median(np.diff(ticks[-64:])), _GAP_S / time_base)))
    return max(1, round(1 / ((stream.average_rate or 25) * time_base)))


# Troubles


def _troubles_of_clock(packets: Packets, kept: list[int], odd_behind: int | None, line: Timeline) -> Iterator[Trouble]:
    runs = packets.runs
    dropped = sorted(set(range(len(runs))) - set(kept))
    if dropped and dropped[0] > kept[-1]:
        yield Trouble("the clock starts anew here; only the part before is used", _seconds(line, line.end_tick))
    elif dropped:
        before = runs[dropped[0] - 1].top_tick if dropped[0] else int(line.ticks[0])
        yield Trouble("times are damaged: the clock leaps and comes back", _seconds(line, before))
    if odd_behind is not None:
        yield Trouble("times are damaged: a frame is due far from those around it", _seconds(line, odd_behind))
    if packets.family not in STREAMED and len(line.ticks) < _DISTINCT * sum(runs[number].packets for number in kept):
        yield Trouble("times are damaged: many frames have the same", _seconds(line, int(line.ticks[0])))


def _troubles_of_packets(packets: Packets, line: Timeline) -> Iterator[Trouble]:
    if packets.lost_at is not None:
        yield Trouble("frames are missing: their data are damaged or lost", _seconds(line, packets.lost_at))
    if packets.error is not None:
        yield Trouble(f"reading: {packets.error}", _seconds(line, line.end_tick))


def _troubles_of_container(
    packets: Packets, container: av.container.InputContainer, announced: int, line: Timeline
) -> Iterator[Trouble]:
    flaw, announced_s = packets.flaw, 0.0 if packets.family in STREAMED else (container.duration or 0) / av.time_base
    end_s = _seconds(line, line.end_tick if packets.incomplete_at is None else packets.incomplete_at)
    if flaw is not None and flaw.inside:
        broken_at = line.ticks[0] if packets.broken_at is None else packets.broken_at
        yield Trouble(flaw.reason, _seconds(line, broken_at))
    elif announced > packets.count + packets.empty:
        yield Trouble(f"the file is cut: it announces {announced} frames and holds {packets.count}", end_s)
    elif flaw is not None and (flaw.certain or announced_s > end_s + _LACK_S):
        yield Trouble(flaw.reason, end_s)
    elif packets.incomplete_at is not None:
        yield Trouble("the file is cut: the data of a frame are incomplete", end_s)


def _frames_of_index(family: str, stream: av.VideoStream, path_bytes: bytes) -> int:
    """How many frames the index of an MP4 names; 0 for other containers.

    Fewer than the header announces may be the work of an edit list, and if they are not, the header is right.
    """
    if family != "mov":
        return 0
    named = len(stream.index_entries)
    if stream.frames > named:
        with open_container(path_bytes, edit_list=False) as whole:
            if len(first_video(whole).index_entries) < stream.frames:
                return stream.frames
    return named


def _seconds(line: Timeline, tick: int) -> float:
    """Player time of a tick, at most the end of the video and at least its start."""
    return float(line.seconds(min(max(tick, int(line.ticks[0])), line.end_tick)))
