"""Which frames the modes of decoding give, beside FFmpeg's own frames decoded one after the other."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vidx.decoders import pyav
from vidx.decoders._disposable import disposable_in
from vidx.schema.records import Preprocess
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store

RATE, FRAMES, SIZE = 25, 150, (96, 64)
PREPROCESS = Preprocess(32, 32)

# Name of the file, codec, its options. What each is here for stands behind it.
KINDS = {
    "pyramid.mp4": ("libx264", {"g": "50", "bf": "3", "b-pyramid": "normal"}),  # B-frames that others are made from
    "annexb.ts": ("libx264", {"g": "50", "bf": "3"}),  # start codes instead of lengths, and a container without keys
    "slices.mkv": ("libx264", {"g": "30", "bf": "2", "slices": "4"}),  # several units a packet
    "open.mkv": ("libx264", {"g": "25", "bf": "3", "x264-params": "open-gop=1"}),
    "no_b.mp4": ("libx264", {"g": "50", "bf": "0"}),
    "hevc.mp4": ("libx265", {"g": "50", "x265-params": "log-level=none:bframes=4:b-pyramid=1:pools=none"}),
    "hevc.ts": ("libx265", {"g": "50", "x265-params": "log-level=none:bframes=3:pools=none"}),  # no record to go by
    "layers.mp4": ("libx265", {"g": "50", "x265-params": "log-level=none:temporal-layers=2:bframes=3:pools=none"}),
    "asp.avi": ("mpeg4", {"g": "25", "bf": "2"}),  # numbered in the order of decoding
    "mpeg2.mpg": ("mpeg2video", {"g": "15", "bf": "2"}),
    "vp9.webm": ("libvpx-vp9", {"g": "50", "deadline": "realtime", "cpu-used": "8"}),
}


def moving(number: int) -> np.ndarray:
    """A picture that moves over noise, so that all frames lean on others."""
    rng = np.random.default_rng(7)
    ground = rng.integers(60, 120, (SIZE[1] * 3, SIZE[0] * 3, 3), np.uint8)
    x, y = int(40 + 30 * np.sin(number / 9)), int(30 + 25 * np.cos(number / 7))
    picture = ground[y : y + SIZE[1], x : x + SIZE[0]].copy()
    at = number * 3 % (SIZE[0] - 16)
    picture[20:36, at : at + 16] = (number % 200, 220, 40)
    return picture


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("kinds")
    for name, (codec, options) in KINDS.items():
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=RATE)
            stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
            stream.codec_context.time_base = Fraction(1, RATE)
            stream.codec_context.thread_count = 1
            stream.options = options
            for number in range(FRAMES):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(moving(number), "rgb24")))
            container.mux(stream.encode())
    return {name: folder / name for name in KINDS}


@pytest.fixture(scope="module")
def all_frames(films: dict[str, Path]) -> Callable[[str], dict[int, np.ndarray]]:
    """Pictures by tick, as FFmpeg decodes the whole file in order."""
    known: dict[str, dict[int, np.ndarray]] = {}

    def of(name: str) -> dict[int, np.ndarray]:
        if name not in known:
            known[name] = frames_at(films[name], ticks_of(films[name]), skips=False)
        return known[name]

    return of


def ticks_of(path: Path) -> list[int]:
    video = pyav.open_video(bytes(path))
    video.close()
    return [int(tick) for tick in video.timeline.ticks]


def frames_at(path: Path, ticks: list[int], mode: str = "exact", skips: bool = True) -> dict[int, np.ndarray]:
    video = pyav.open_video(bytes(path), mode=mode)
    if not skips:
        assert mode == "exact"
        video._skips._is_disposable = None
    found = {shown.tick: shown.pixels(PREPROCESS) for _, shown in video.frames_at(ticks)}
    assert video.damage is None
    video.close()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_exact_gives_every_frame_to_the_last_bit_whatever_else_is_asked(
    films: dict[str, Path], all_frames: Callable[[str], dict[int, np.ndarray]], name: str, data: st.DataObject
) -> None:
    expected = all_frames(name)
    asked = sorted(data.draw(st.sets(st.sampled_from(sorted(expected)), min_size=1, max_size=12)))
    found = frames_at(films[name], asked)
    assert sorted(found) == asked
    assert all(np.array_equal(found[tick], expected[tick]) for tick in asked)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_disposable_packets_are_those_ffmpeg_drops_as_no_reference(films: dict[str, Path], name: str) -> None:
    with av.open(str(films[name])) as container:
        stream = container.streams.video[0]
        is_disposable = disposable_in(stream.codec_context)
        packets = [packet for packet in container.demux(stream) if packet.size]
    if is_disposable is None:
        assert name in ("hevc.ts", "layers.mp4", "asp.avi", "mpeg2.mpg", "vp9.webm")
        return
    disposable = {packet.pts for packet in packets if is_disposable(packet)}
    with av.open(str(films[name])) as container:
        container.streams.video[0].codec_context.skip_frame = "NONREF"
        kept = {frame.pts for frame in container.decode(video=0)}
    assert {packet.pts for packet in packets} - kept == disposable
    assert bool(disposable) == (name != "no_b.mp4")


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_fast_stays_near_in_time_and_in_looks(
    films: dict[str, Path], all_frames: Callable[[str], dict[int, np.ndarray]], name: str
) -> None:
    ticks = ticks_of(films[name])
    video = pyav.open_video(bytes(films[name]), mode="fast")
    near = list(video.frames_at(ticks[::9]))
    assert len(near) == len(ticks[::9])
    assert video.damage is None
    for tick, shown in near:
        assert abs(shown.tick - tick) * video.timeline.time_base <= 0.25
        error = np.mean((shown.pixels(PREPROCESS).astype(float) - all_frames(name)[shown.tick]) ** 2)
        assert 10 * np.log10(255**2 / max(error, 1e-9)) > 25
    video.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_keyframes_gives_the_nearest_key_frame(films: dict[str, Path], name: str) -> None:
    video = pyav.open_video(bytes(films[name]), mode="keyframes")
    keys = np.intersect1d(video.timeline.key_ticks, video.timeline.ticks)
    for tick, shown in video.frames_at(ticks_of(films[name])[::7]):
        assert abs(shown.tick - tick) == np.abs(keys - tick).min()
    assert video.damage is None
    video.close()


@pytest.mark.slow
def test_where_key_frames_are_far_apart_keyframes_decodes_as_fast_does(
    make_video: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_video(tmp_path / "rare.mp4", n_frames=300, fps=10, gop=250)  # key frames at 0 and 25 s
    video = pyav.open_video(bytes(path), mode="keyframes")
    ticks = video.timeline.ticks
    tick_of = {round(float(s), 1): int(tick) for s, tick in zip(video.timeline.seconds(ticks), ticks, strict=True)}
    asked = [tick_of[second] for second in (2.0, 5.0, 12.0, 21.0)]
    shown = [float(video.timeline.seconds(frame.tick)) for _, frame in video.frames_at(asked)]
    assert shown == pytest.approx([0.0, 0.0, 12.0, 25.0], abs=0.25)
    video.close()


@pytest.mark.slow
def test_a_coarser_mode_never_redoes_what_a_finer_one_redoes(
    vidx: Callable[..., subprocess.CompletedProcess[str]], make_video: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "films").mkdir()
    make_video(tmp_path / "films" / "a.mp4")

    def run(*options: Any) -> tuple[str, str | None]:
        done = vidx(
            "index", tmp_path / "films", "--store", tmp_path / "store", "--encoder", "conse", "--json", *options
        )
        assert done.returncode == 0, done.stderr
        state = "unchanged" if '"unchanged": 1' in done.stdout.splitlines()[-1] else "indexed"
        [(mode,)] = Snapshot(Store.open(tmp_path / "store")).rows("SELECT decode_mode FROM newest")
        return state, mode

    assert run("--decode", "keyframes") == ("indexed", "keyframes")
    assert run() == ("unchanged", "keyframes")
    assert run("--decode", "fast") == ("indexed", "fast")
    assert run("--decode", "keyframes") == ("unchanged", "fast")
    assert run("--decode", "exact") == ("indexed", "exact")
    assert run("--decode", "fast") == ("unchanged", "exact")
