"""What the store tells exporters of a file: its exact rate, whether there is one, and its exact path."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidx.decoders.pyav import open_video
from vidx.export._media import Media, media_of, rate_of
from vidx.indexer.plan import Windows, plan
from vidx.schema import tables
from vidx.schema.records import Preprocess, printable
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.schema.store import Store
from vidx.schema.writer import Commit, writing

SPACE = Space("toy", {"video": "ab"}, Preprocess(8, 8), frames=8, pooling="mean", dim=4)
NTSC = Fraction(1000, 1001)


def stored(store: Store, *paths: Path, **facts: Any) -> dict[str, Media]:
    """What `media_of` says of files whose facts and clips are put into a store; by the name of the file.

    `facts` stand in the place of the file's own.
    """
    rows = Commit()
    with writing(store) as opened:
        opened.add_space(SPACE)
        for path in paths:
            video = open_video(os.fsencode(path))
            video_id = os.fsencode(path.name).hex()
            clips = plan(video.timeline, Windows(10.0, 10.0, SPACE.frames))
            first = opened.reserve_clip_ids(len(clips))
            for number, clip in enumerate(clips, start=first):
                frames_s = video.timeline.seconds(np.array(clip.ticks)).tolist()
                row = {"clip_id": number, "video_id": video_id, "start_s": clip.start_s, "end_s": clip.end_s}
                row |= {"frame_pts": list(clip.ticks), "frame_pts_s": frames_s}
                rows.clips.setdefault(SPACE.name, []).append({**row, "vector": np.eye(SPACE.dim, dtype=np.float32)[0]})
            indexed: dict[str, Any] = dict.fromkeys(tables.INDEXED.names) | {"video_id": video_id, "state": "ok"}
            indexed |= {"space": SPACE.name, "first_clip_id": first, "n_clips": len(clips)}
            rows.indexed.append({**indexed, "indexed_at": datetime.now(UTC)})
            rows.videos.append({**asdict(video.facts), "video_id": video_id, **facts})
            file = dict.fromkeys(tables.FILES.names) | {"path": printable(os.fsencode(path)), "video_id": video_id}
            rows.files.append({**file, "path_bytes": os.fsencode(path), "state": "present"})
            video.close()
        opened.commit(rows)
    found = media_of(Snapshot(store), [os.fsencode(path.name).hex() for path in paths])
    return {path.name: found[os.fsencode(path.name).hex()] for path in paths}


@pytest.mark.parametrize("rate", [24 * NTSC, Fraction(25), 30 * NTSC, 60 * NTSC, Fraction(25, 2)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_exact_rate_of_a_real_file_is_found_again(
    store: Store, make_video: Callable[..., Path], tmp_path: Path, rate: Fraction, suffix: str
) -> None:
    path = make_video(tmp_path / f"a{suffix}", n_frames=130, fps=rate)
    facts = stored(store, path)[path.name]
    assert facts.frame_rate == rate
    assert facts.n_frames == 130
    assert facts.duration_s == pytest.approx(float(130 / rate), abs=2e-3)
    assert facts.size_bytes == path.stat().st_size


def test_a_variable_rate_is_no_rate_even_where_its_average_is_one(
    store: Store, make_video: Callable[..., Path], tmp_path: Path
) -> None:
    uneven = make_video(tmp_path / "a.mp4", pts=[40 * at + (20 if 20 < at % 50 < 40 else 0) for at in range(250)])
    assert stored(store, uneven, frame_rate=25.0, duration_s=10.0)["a.mp4"].frame_rate is None
    even = make_video(tmp_path / "b.mp4", pts=range(0, 10_000, 40))
    assert stored(store, even, frame_rate=25.0, duration_s=10.0)["b.mp4"].frame_rate == 25


def test_the_rates_of_odd_files(store: Store, shared: Path) -> None:
    names = ["plain.mp4", "vfr.mp4", "vfr_gap.mkv", "offset3600.ts", "editlist_cut.mp4", "late_video.mp4", "vp9.webm"]
    found = stored(store, *(shared / "videos_odd" / name for name in names))
    assert [found[name].frame_rate for name in names] == [25, None, None, 25, 25, 25, 25]
    assert found["late_video.mp4"].first_s == pytest.approx(2.0)
    assert found["late_video.mp4"].has_audio


def test_a_path_that_is_no_utf_8_is_given_back_byte_by_byte(
    store: Store, make_video: Callable[..., Path], tmp_path: Path
) -> None:
    path = Path(os.fsdecode(os.fsencode(make_video(tmp_path / "a.mp4").rename(tmp_path / os.fsdecode(b"caf\xe9.mp4")))))
    facts = stored(store, path)[path.name]
    assert facts.paths == {printable(os.fsencode(path)): os.fsencode(path)}


@given(st.sampled_from([Fraction(n, d) * s for n in range(1, 130) for d, s in ((1, 1), (1, NTSC), (2, 1))]))
def test_a_rate_is_found_from_its_own_float(rate: Fraction) -> None:
    assert rate_of(float(rate), 1000, float(1000 / rate)) == rate


@pytest.mark.parametrize(
    ("average", "n_frames", "length_s"),
    [(0.0, 100, 4.0), (12.7, 127, 10.0), (29.83, 2983, 100.0), (25.0, 150, 14.0), (25.0, 1000, 42.0)],
)
def test_what_is_near_no_rate_or_does_not_fill_the_time_has_none(
    average: float, n_frames: int, length_s: float
) -> None:
    assert rate_of(average, n_frames, length_s) is None
