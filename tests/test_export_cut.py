"""Cuts of real files: which frames, which samples of sound, what becomes of those that fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vidx.decoders.pyav import open_video
from vidx.errors import InputError
from vidx.export import _cut_process, edl
from vidx.export._media import Media, TimelineOptions, media_of
from vidx.export.cut import CutResult, cut
from vidx.schema.records import Answer, Hit
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store

SOUND_RATE = 48_000
BURNED = 16  # blocks of 16 pixels, see NOTES.md beside the files


def media_of_file(path: Path) -> Media:
    video = open_video(os.fsencode(path))
    facts = video.facts
    video.close()
    names = ("n_frames", "first_s", "duration_s", "has_audio", "codec", "size_bytes", "timecode")
    return Media({}, None, *(getattr(facts, name) for name in names))


def cuts(paths: list[Path], ranges: list[tuple[float, float]], folder: Path, **options: Any) -> list[CutResult]:
    """One cut of each file, in its range of player time."""
    hits = [
        Hit(rank, 0.5, None, str(rank), str(path), [str(path)], True, *span, sum(span) / 2, [])
        for rank, (path, span) in enumerate(zip(paths, ranges, strict=True), start=1)
    ]
    media = {str(rank): media_of_file(path) for rank, path in enumerate(paths, start=1)}
    return cut(Answer("/s", "q", "toy-0", 1.0, 1.0, None, hits), media, folder, **options)


def number_of(grey: np.ndarray, turns: int) -> int:
    """The number burned into a frame, turned back by quarters first."""
    head = np.rot90(grey, -turns)[4:12, : BURNED * 16]
    bits = [int(head[:, 16 * at + 4 : 16 * at + 12].mean() > 128) for at in range(BURNED)]
    assert bits[:4] == [1, 0, 1, 0]
    return int("".join(map(str, bits[4:])), 2)


def shown(path: Path, turns: int = 0) -> list[tuple[float, int]]:
    """Player time and burned number of every frame."""
    video = open_video(os.fsencode(path))
    assert video.damage is None
    return [
        (float(video.timeline.seconds(picture.tick)), number_of(picture.frame.to_ndarray(format="gray"), turns))
        for _, picture in video.frames_at(video.timeline.ticks.tolist())
    ]


def grey_numbers(path: Path) -> list[int]:
    """Numbers of frames that `flat_grey` drew."""
    with av.open(str(path)) as container:
        return [round(float(frame.to_ndarray(format="gray").mean()) / 5) for frame in container.decode(video=0)]


# Which frames


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("plain.mp4", "rot90.mp4", "rot180.mp4", "rot270.mp4", "vfr.mp4", "offset3600.ts", "wrap33.ts", "mjpeg.avi"),
        *("editlist_cut.mp4", "editlist_skip_1s.mp4", "late_video.mp4", "no_editlist_bframes.mp4", "opengop.mp4"),
        *("mkv_named.mp4", "asp_bframes.avi", "odd_dims_vp9.webm", "hevc10.mp4", "sar_4_3.mp4", "fragmented.mp4"),
        *("h264_interlaced.mp4", "intra_refresh.mp4"),
    ],
)
def test_a_cut_has_exactly_the_frames_between_its_times(shared: Path, tmp_path: Path, name: str) -> None:
    source = shared / "videos_odd" / name
    facts = open_video(os.fsencode(source)).facts
    turns = facts.rotation // 90
    length_s = facts.duration_s - facts.first_s
    start_s, end_s = facts.first_s + 0.31 * length_s, facts.first_s + 0.72 * length_s
    expected = [(time_s, number) for time_s, number in shown(source) if start_s <= time_s < end_s]
    [made] = cuts([source], [(start_s, end_s)], tmp_path)
    assert made.reason is None
    found = shown(made.path, turns)
    assert [number for _, number in found] == [number for _, number in expected]
    assert [time_s for time_s, _ in found] == pytest.approx([t - expected[0][0] for t, _ in expected], abs=1e-3)
    cut_facts = open_video(os.fsencode(made.path)).facts
    upright = (facts.width // 2 * 2, facts.height // 2 * 2)
    assert (cut_facts.width, cut_facts.height) == (upright if turns % 2 == 0 else upright[::-1])
    assert (cut_facts.rotation, cut_facts.sar_num, cut_facts.sar_den) == (0, facts.sar_num, facts.sar_den)
    assert cut_facts.time_origin_s == cut_facts.first_s == 0
    assert made.start_s == pytest.approx(expected[0][0])
    assert cut_facts.duration_s == pytest.approx(made.end_s - made.start_s, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain.mp4", "opengop.mp4", "offset3600.ts", "mkv_named.mp4", "vfr.mp4", "av1.mp4"])
def test_a_copy_begins_at_the_key_frame_before_and_has_all_that_was_asked_for(
    shared: Path, tmp_path: Path, name: str
) -> None:
    source = shared / "videos_odd" / name
    video = open_video(os.fsencode(source))
    start_s, end_s = video.facts.first_s + 2.51, video.facts.first_s + 4.2
    keys_s = video.timeline.seconds(video.timeline.key_ticks)
    [made] = cuts([source], [(start_s, end_s)], tmp_path, copy=True)
    assert made.reason is None
    assert made.start_s == pytest.approx(max(keys_s[keys_s <= start_s + 0.04]))
    expected = [(t, number) for t, number in shown(source) if made.start_s - 1e-6 <= t < end_s]
    found = shown(made.path)
    assert [number for _, number in found[: len(expected)]] == [number for _, number in expected]
    assert len(found) - len(expected) <= 4
    times_s = [time_s - made.start_s for time_s, _ in expected]
    assert [time_s for time_s, _ in found[: len(expected)]] == pytest.approx(times_s, abs=1e-3)


@pytest.mark.slow
def test_a_copy_keeps_the_rotation(make_video: Callable[..., Path], tmp_path: Path) -> None:
    [made] = cuts([make_video(tmp_path / "a.mp4", rotation=90)], [(1.0, 2.0)], tmp_path / "out", copy=True)
    assert open_video(os.fsencode(made.path)).facts.rotation == 90


@pytest.mark.slow
def test_start_and_end_are_half_open_and_handles_stay_inside(make_video: Callable[..., Path], tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4")  # 50 frames, 10 a second
    spans = [(1.0, 1.5), (1.01, 1.51), (0.0, 5.0)]
    made = cuts([source] * 3, spans, tmp_path / "plain")
    assert [grey_numbers(each.path) for each in made] == [[*range(10, 15)], [*range(11, 16)], [*range(50)]]
    [wide] = cuts([source], [(0.5, 4.5)], tmp_path / "wide", handles_s=1.0)
    assert grey_numbers(wide.path) == [*range(50)]
    assert wide.path.name == "001_a_000000.000-000005.000.mp4"


@pytest.mark.slow
def test_interlaced_pictures_stay_interlaced(shared: Path, tmp_path: Path) -> None:
    for name, expected in (("h264_interlaced.mp4", True), ("plain.mp4", False)):
        [made] = cuts([shared / "videos_odd" / name], [(1.0, 2.0)], tmp_path / name)
        with av.open(str(made.path)) as container:
            assert {frame.interlaced_frame for frame in container.decode(video=0)} == {expected}


@pytest.mark.slow
def test_damage_in_the_source_is_told(shared: Path, tmp_path: Path) -> None:
    sources = [shared / "videos_odd" / name for name in ("bitflip_1e-3.mp4", "plain.mp4")]
    hurt, whole = cuts(sources, [(1.0, 4.0)] * 2, tmp_path)
    assert (hurt.reason, whole.reason, whole.damage) == (None, None, None)
    assert hurt.damage is not None
    assert grey_numbers(hurt.path)


@pytest.mark.slow
def test_hits_of_a_store_become_cuts_and_events(indexed_store: Path, vidx: Callable[..., Any], tmp_path: Path) -> None:
    found = json.loads(vidx("search", "a cat", "-k", 3, "--store", indexed_store, "--format", "json").stdout)
    hits = [Hit(**fields) for fields in found["hits"]]
    answer = Answer("/s", "a cat", "toy-0", 1.0, 1.0, None, hits)
    media = media_of(Snapshot(Store.open(indexed_store)), [hit.video_id for hit in answer.hits])
    assert {facts.frame_rate for facts in media.values()} == {10}  # as the archive is made
    lines = edl.to_timeline(answer, media, TimelineOptions()).decode().splitlines()
    events = [line.split() for line in lines if line[:3].isdigit()]
    made = cut(answer, media, tmp_path / "out")
    assert len(events) == len(made) == len(answer.hits) == 3
    for event, each in zip(events, made, strict=True):
        assert each.reason is None
        with av.open(str(each.path)) as container:
            n_frames = sum(1 for _ in container.decode(video=0))
        assert n_frames == round((each.hit.end_s - each.hit.start_s) * 10)
        first, stop = (np.dot([int(part) for part in text.split(":")], [36000, 600, 10, 1]) for text in event[4:6])
        assert (first, stop - first) == (round(each.hit.start_s * 10), n_frames)


# Sound


def with_clicks(path: Path, clicks_s: list[float], length_s: float = 8.0) -> Path:
    """A video whose frame turns white, and whose sound clicks, at the same instants; sound is not compressed."""
    clicks = [round(click_s * SOUND_RATE) for click_s in clicks_s]
    samples = np.zeros((1, round(length_s * SOUND_RATE)), np.int16)
    for click in clicks:
        samples[0, click : click + 480] = 20_000
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("libx264", rate=25, options={"bf": "2", "g": "50"})
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=SOUND_RATE, layout="mono")
        for number in range(round(length_s * 25)):
            is_white = any(round(click_s * 25) == number for click_s in clicks_s)
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 255 * is_white, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(pictures.encode(frame))
            piece = av.AudioFrame.from_ndarray(samples[:, number * 1920 : (number + 1) * 1920], "s16", "mono")
            piece.sample_rate, piece.pts, piece.time_base = SOUND_RATE, number * 1920, Fraction(1, SOUND_RATE)
            container.mux(sound.encode(piece))
        container.mux(pictures.encode(None))
        container.mux(sound.encode(None))
    return path


def flashes_and_clicks(path: Path) -> tuple[list[float], list[float]]:
    """Seconds of the white frames, and of the first loud sample of each click."""
    with av.open(str(path)) as container:
        white = [f.time for f in container.decode(video=0) if f.to_ndarray(format="gray").mean() > 128]
    with av.open(str(path)) as container:
        loud_s: list[float] = []
        for frame in container.decode(audio=0):
            level = np.abs(frame.to_ndarray().astype(np.float64)).reshape(-1)
            level /= 32768 if frame.format.name.startswith("s16") else 1
            loud_s += (frame.time + np.flatnonzero(level > 0.3) / frame.sample_rate).tolist()
    return white, [t for t, before in zip(loud_s, [-1.0, *loud_s], strict=False) if t - before > 0.2]


@pytest.mark.slow
@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("suffix", [".mkv", ".mov"])
def test_sound_and_pictures_stay_together(tmp_path: Path, copy: bool, suffix: str) -> None:
    source = with_clicks(tmp_path / f"a{suffix}", [0.4, 2.0, 3.6, 5.0, 7.2])
    [made] = cuts([source], [(1.52, 6.0)], tmp_path / "out", copy=copy)
    assert made.reason is None
    white, clicks = flashes_and_clicks(made.path)
    assert clicks == pytest.approx(white, abs=0.003)
    assert [time_s + made.start_s for time_s in white if time_s + made.start_s > 1.52] == pytest.approx(
        [2.0, 3.6, 5.0], abs=0.002
    )


# What fails


@pytest.mark.slow
def test_one_that_crashes_or_hangs_stops_no_other(
    make_video: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [make_video(tmp_path / f"{name}.mp4") for name in ("good", "crash", "hang", "better")]
    script = tmp_path / "child.py"
    script.write_text(
        "import io, json, os, runpy, signal, sys, time\n"
        "text = sys.stdin.read()\n"
        "path = bytes.fromhex(json.loads(text)['path_hex'])\n"
        "if path.endswith(b'crash.mp4'): os.kill(os.getpid(), signal.SIGSEGV)\n"
        "if path.endswith(b'hang.mp4'): time.sleep(600)\n"
        "sys.stdin = io.StringIO(text)\n"
        "runpy.run_module('vidx.export._cut_child', run_name='__main__')\n"
    )
    monkeypatch.setattr(_cut_process, "COMMAND", [sys.executable, str(script)])
    monkeypatch.setattr(_cut_process, "STALL_S", 10.0)
    made = cuts(sources, [(0.0, 1.0)] * 4, tmp_path / "out")
    assert [each.reason for each in made] == [
        None,
        "the cutting process crashed (SIGSEGV)",
        "cutting made no progress for 10 s",
        None,
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([made[0].path.name, made[3].path.name])


def test_files_that_are_gone_changed_or_broken_say_so_each(make_video: Callable[..., Path], tmp_path: Path) -> None:
    sources = [make_video(tmp_path / f"{name}.mp4") for name in ("gone", "changed", "broken")]
    hits = [Hit(rank, 0.5, None, str(rank), str(path), [], True, 0.0, 1.0, 0.5) for rank, path in enumerate(sources, 1)]
    media = {hit.video_id: media_of_file(path) for hit, path in zip(hits, sources, strict=True)}
    sources[0].unlink()
    sources[1].write_bytes(b"another")
    sources[2].write_bytes(b"x" * media["3"].size_bytes)
    made = cut(Answer("/s", "q", "toy-0", 1.0, 1.0, None, hits), media, tmp_path / "out")
    assert [each.reason for each in made] == [
        "it can't be read now: No such file or directory",
        "it has changed since it was indexed",
        "not a video container",
    ]
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_that_is_there_is_never_overwritten(make_video: Callable[..., Path], tmp_path: Path) -> None:
    source, out = make_video(tmp_path / "a.mp4"), tmp_path / "out"
    out.mkdir()
    theirs = out / "002_a_000001.000-000002.000.mp4"
    theirs.write_bytes(b"precious")
    with pytest.raises(InputError, match=r"002_a_.*\.mp4 is there already"):
        cuts([source, source], [(0.0, 1.0), (1.0, 2.0)], out)
    assert theirs.read_bytes() == b"precious"
    assert list(out.iterdir()) == [theirs]


def test_a_folder_that_cannot_be_made_is_one_line(make_video: Callable[..., Path], tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4")
    with pytest.raises(InputError, match="can't write to"):
        cuts([source], [(0.0, 1.0)], source)
    with pytest.raises(InputError, match="can't write to"):
        cuts([source], [(0.0, 1.0)], tmp_path / "not" / "there")


@pytest.mark.slow
def test_names_are_made_safe_and_short(make_video: Callable[..., Path], tmp_path: Path) -> None:
    original = make_video(tmp_path / "plain.mp4", n_frames=10)
    names = ["-rf *\n?.mp4", "ü" * 120 + ".mp4", "..mp4", os.fsdecode(b"caf\xe9.mp4")]
    sources = [tmp_path / name for name in names]
    for source in sources:
        source.write_bytes(original.read_bytes())
    made = cuts(sources, [(0.0, 1.0)] * len(sources), tmp_path / "out")
    assert [each.reason for each in made] == [None] * len(sources)
    for each in made:
        assert each.path.parent == tmp_path / "out"
        assert each.path.is_file()
        assert len(os.fsencode(each.path.name)) < 200
        assert not set(each.path.name) & set("*?\n /\\:")


@pytest.mark.slow
def test_an_interrupt_ends_the_work_and_leaves_nothing_behind(
    make_video: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources, out = [make_video(tmp_path / f"{number}.mp4") for number in range(3)], tmp_path / "out"
    monkeypatch.setattr(_cut_process, "COMMAND", [sys.executable, "-c", "import time; time.sleep(600)"])
    hits = [(0.0, 1.0)] * 3
    interrupt = subprocess.Popen(["sh", "-c", f"sleep 1; kill -INT {os.getpid()}"])
    began = time.monotonic()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            cuts(sources, hits, out)
    finally:
        signal.signal(signal.SIGINT, before)
        interrupt.wait()
    assert time.monotonic() - began < 60
    assert list(out.iterdir()) == []
