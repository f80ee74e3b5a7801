"""EDL, OTIO and M3U: what an editor or a player reads from them is what the search found, to the frame."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from fractions import Fraction
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidx.errors import InputError
from vidx.export import edl, m3u, otio
from vidx.export._media import Media, TimelineOptions
from vidx.export._timecode import start_of
from vidx.schema.records import Answer, Hit, printable

NTSC = Fraction(1000, 1001)
RATES = [24 * NTSC, Fraction(24), Fraction(25), 30 * NTSC, Fraction(30), Fraction(50), 60 * NTSC]
PLAIN = TimelineOptions()


def media(rate: Fraction | None = Fraction(25), *, n_frames: int = 2500, **facts: Any) -> Media:
    length_s = float(n_frames / (rate or 25))
    plain = Media({}, rate, n_frames, 0.0, length_s, False, "h264", 1000, None)
    first_s = facts.get("first_s", 0.0)
    return replace(plain, **{"duration_s": first_s + length_s, **facts})


def hit(video_id: str = "v", start_s: float = 10.0, end_s: float = 20.0, **fields: Any) -> Hit:
    path = fields.pop("path", f"/archive/{video_id}.mp4")
    peak_s = fields.pop("peak_s", (start_s + end_s) / 2)
    plain = Hit(1, 0.25, None, video_id, path, [path], True, start_s, end_s, peak_s, [7])
    return replace(plain, **fields)


def answer(*hits: Hit, query: str = "a cat") -> Answer:
    ranked = [replace(hit, rank=rank) for rank, hit in enumerate(hits, start=1)]
    return Answer("/store", query, "toy-0", load_ms=1.0, took_ms=1.0, total=None, hits=ranked)


def edl_text(*hits: Hit, options: TimelineOptions = PLAIN, **files: Media) -> str:
    return edl.to_timeline(answer(*hits), files, options).decode()


def events(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if re.match(r"\d{3} ", line)]


# EDL


def test_an_edl_is_laid_out_as_editors_expect_it() -> None:
    files = {"cat": media(timecode="01:02:03:04", has_audio=True), "dog": media()}
    text = edl_text(hit("cat", 10, 12), hit("dog", 1.5, 4.25, path="/a b/ünd.mov"), **files)
    assert text.split("\r\n") == [
        "TITLE: a cat",
        "FCM: NON-DROP FRAME",
        "",
        "001  CAT      B     C        01:02:13:04 01:02:15:04 01:00:00:00 01:00:02:00",
        "* FROM CLIP NAME: cat.mp4",
        "* SOURCE FILE: /archive/cat.mp4",
        "* LOC: 01:00:01:00 RED     1 0.250 a cat",
        "002  UND      V     C        00:00:01:12 00:00:04:07 01:00:02:00 01:00:04:20",
        "* FROM CLIP NAME: ünd.mov",
        "* SOURCE FILE: /a b/ünd.mov",
        "* LOC: 01:00:03:09 RED     2 0.250 a cat",
        "",
    ]


def test_drop_frame_is_said_for_the_whole_list_or_for_the_events_that_differ() -> None:
    rate = 30 * NTSC
    drop, plain = media(rate, timecode="00:00:59;28"), media(rate, timecode="00:00:59:28")
    only_drop = edl_text(hit("a", 0.0, 0.1), **{"a": drop})
    assert "FCM: DROP FRAME" in only_drop
    assert events(only_drop)[0][4:] == ["00:00:59;28", "00:01:00;03", "01:00:00;00", "01:00:00;03"]
    lines = edl_text(hit("a", 0, 1), hit("b", 0, 1), hit("b", 3, 4), hit("a", 5, 6), a=drop, b=plain).splitlines()
    codes = [line for line in lines if line.startswith("FCM") or re.match(r"\d{3} ", line)]
    assert [code[:5] for code in codes] == ["FCM: ", "FCM: ", "001  ", "FCM: ", "002  ", "003  ", "FCM: ", "004  "]
    assert [code for code in codes if code.startswith("FCM")] == [
        *("FCM: NON-DROP FRAME", "FCM: DROP FRAME", "FCM: NON-DROP FRAME", "FCM: DROP FRAME"),
    ]
    assert all(":" in event[6][-3] for event in events("\n".join(lines)))


def test_reels_are_eight_plain_characters_and_one_for_each_file() -> None:
    paths = [
        "/a/long name of a file.mp4",
        "/b/long name of another.mp4",
        "/c/日本.mp4",
        "/d/black.mov",
        "/e/bl.mov",
        "/f/ax",
    ]
    hits = [hit("v", path=path) for path in (*paths, paths[0])]
    reels = [event[1] for event in events(edl_text(*hits, v=media()))]
    assert reels == ["LONGNAME", "LONGNAM2", "REEL", "BLACK2", "BL2", "AX2", "LONGNAME"]


@given(st.lists(st.text(min_size=1), unique=True, max_size=30))
@settings(max_examples=50)
def test_no_two_files_share_a_reel_and_no_name_breaks_a_line(names: list[str]) -> None:
    hits = [hit("v", path=f"/{number}/{name}") for number, name in enumerate(names)]
    text = edl_text(*hits, v=media())
    reels = [event[1] for event in events(text)]
    assert len(set(reels)) == len(reels) == len(names)
    assert all(re.fullmatch("[A-Z0-9]{1,8}", reel) for reel in reels)
    assert len(text.splitlines()) == 3 + 4 * len(names)


def test_hits_of_several_rates_are_refused_in_one_line_that_names_both() -> None:
    with pytest.raises(
        InputError, match=r"^an EDL has one frame rate: /archive/a.mp4 has 25, /archive/b.mp4 has 29.97$"
    ):
        edl_text(hit("a"), hit("b"), a=media(), b=media(30 * NTSC))


def test_files_whose_frames_cannot_be_counted_are_refused_by_name() -> None:
    for rate, why in ((None, "variable frame rate"), (Fraction(25, 2), "12.5 frames a second")):
        with pytest.raises(InputError, match=f"/archive/a.mp4 has .*{why}") as caught:
            edl_text(hit("a"), a=media(rate))
        assert "otio" in caught.value.hint


def test_a_list_holds_999_events_and_24_hours_and_no_more() -> None:
    files = {"v": media(), "w": media(n_frames=25 * 3600 * 23)}
    assert events(edl_text(*[hit()] * 999, **files))[-1][0] == "999"
    with pytest.raises(InputError, match="at most 999 events"):
        edl_text(*[hit()] * 1000, **files)
    with pytest.raises(InputError, match="before 24 hours"):
        edl_text(hit("w", 0, 3600 * 23), **files)


def test_a_timecode_that_is_none_is_told_and_counted_from_zero() -> None:
    text = edl_text(hit(), v=media(timecode="01:00:00:29"))
    assert events(text)[0][4] == "00:00:10:00"
    assert "* COMMENT: 01:00:00:29 IS NO TIMECODE AT THIS RATE, COUNTED FROM 00:00:00:00" in text


def test_handles_widen_events_as_far_as_the_file_goes() -> None:
    text = edl_text(hit(start_s=1, end_s=99), options=TimelineOptions(handles_s=2.0, markers=False), v=media())
    assert events(text)[0][4:] == ["00:00:00:00", "00:01:40:00", "01:00:00:00", "01:01:40:00"]
    assert "LOC" not in text


def test_frames_count_from_the_first_even_where_that_is_shown_late() -> None:
    assert events(edl_text(hit(start_s=3, end_s=4), v=media(first_s=2.0)))[0][4] == "00:00:01:00"


# Reading back with opentimelineio


TIMECODES = [None, "01:00:00:00", "22:59:50:00", "00:00:58:10", "00:00:58;10", "10:00:00;00"]
MOMENTS = st.tuples(st.floats(0, 90), st.floats(0.01, 10)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def expected(start_s: float, end_s: float, rate: Fraction) -> tuple[int, int]:
    """First and last frame on screen, found by looking at each; `end_s` itself is no longer part of the moment."""
    begins_s = np.arange(6000) / float(rate)
    near_s = 0.001 / float(rate)
    shown = np.flatnonzero((begins_s + 1 / float(rate) > start_s + near_s) & (begins_s < end_s - near_s)).tolist()
    return shown[0], shown[-1]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(RATES), st.sampled_from(TIMECODES), st.lists(MOMENTS, min_size=1, max_size=4))
def test_an_edl_reads_back_to_the_frame(
    rate: Fraction, timecode: str | None, moments: list[tuple[float, float]]
) -> None:
    reader = pytest.importorskip("opentimelineio", reason="the extra `edit` is not installed")
    if "cmx_3600" not in reader.adapters.available_adapter_names():
        pytest.skip("otio-cmx3600-adapter is not installed")
    facts = media(rate, n_frames=6000, timecode=timecode)
    text = edl_text(*(hit("v", *moment) for moment in moments), v=facts)
    timeline = reader.adapters.read_from_string(text, "cmx_3600", rate=float(rate))
    _, start = start_of(timecode, rate)
    clips = list(timeline.find_clips())
    assert len(clips) == len(moments)
    for clip, moment in zip(clips, moments, strict=True):
        first, last = expected(*moment, rate)
        span = clip.source_range
        assert (span.start_time.value, span.end_time_inclusive().value) == (start + first, start + last)
        assert clip.name == "v.mp4"


def read_otio(answered: Answer, files: dict[str, Media], options: TimelineOptions = PLAIN) -> Any:
    reader = pytest.importorskip("opentimelineio", reason="the extra `edit` is not installed")
    return reader.adapters.read_from_string(otio.to_timeline(answered, files, options).decode(), "otio_json")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(RATES), st.sampled_from(TIMECODES), MOMENTS), min_size=1, max_size=4))
def test_a_timeline_of_several_rates_reads_back_to_the_frame(cases: list[Any]) -> None:
    files = {f"v{at}": media(rate, n_frames=6000, timecode=text) for at, (rate, text, _) in enumerate(cases)}
    timeline = read_otio(answer(*(hit(f"v{at}", *moment) for at, (*_, moment) in enumerate(cases))), files)
    [track] = timeline.tracks
    for clip, (rate, timecode, moment) in zip(track, cases, strict=True):
        first, last = expected(*moment, rate)
        _, start = start_of(timecode, rate)
        assert clip.source_range.start_time.rate == pytest.approx(float(rate), abs=1e-9)
        assert clip.source_range.start_time.value == start + first
        assert clip.source_range.end_time_inclusive().value == start + last
        assert clip.available_range().start_time.value == start
        assert clip.available_range().duration.value == 6000
        assert 0 <= first <= last < 6000


def test_a_timeline_names_files_markers_and_scores() -> None:
    path = b"/a b/caf\xe9 #1?\n.mov"
    found = hit("v", 10, 20, path=printable(path), peak_s=15.0, score=0.75)
    timeline = read_otio(answer(found), {"v": media(paths={printable(path): path}, timecode="01:00:00:00")})
    [clip] = timeline.find_clips()
    url = urlsplit(clip.media_reference.target_url)
    assert (url.scheme, url.netloc, url.query, url.fragment) == ("file", "", "", "")
    assert unquote_to_bytes(url.path) == path
    [marker] = clip.markers
    assert marker.marked_range.start_time.value == 90000 + 375
    assert dict(marker.metadata["vidx"]) == {"query": "a cat", "score": 0.75, "rank": 1}
    assert clip.metadata["vidx"]["video_id"] == "v"


def test_sound_lies_under_its_pictures_and_silence_under_the_others() -> None:
    files = {"a": media(has_audio=True), "b": media(30 * NTSC), "c": media(has_audio=True)}
    pictures, sound = read_otio(answer(hit("a"), hit("b", 1, 2), hit("c", 5, 9)), files).tracks
    assert (pictures.kind, sound.kind) == ("Video", "Audio")
    assert [type(item).__name__ for item in sound] == ["Clip", "Gap", "Clip"]
    for number in range(3):
        assert sound.range_of_child_at_index(number) == pictures.range_of_child_at_index(number)


def test_times_of_a_variable_rate_are_thousandths_of_a_second() -> None:
    files = {"v": media(None, n_frames=7, duration_s=60.0, timecode="01:00:00:00")}
    [clip] = read_otio(answer(hit("v", 10.0004, 20.0)), files).find_clips()
    assert (clip.source_range.start_time.value, clip.source_range.start_time.rate) == (10000, 1000)
    assert clip.source_range.end_time_exclusive().value == 20000
    assert clip.available_range().duration.value == 60000
    assert clip.media_reference.metadata["vidx"]["variable_frame_rate"] is True


def test_handles_of_a_timeline_stay_inside_the_file() -> None:
    options = TimelineOptions(handles_s=5.0, markers=False)
    [clip] = read_otio(answer(hit("v", 1, 98)), {"v": media()}, options).find_clips()
    assert (clip.source_range.start_time.value, clip.source_range.duration.value) == (0, 2500)
    assert list(clip.markers) == []


def test_otio_without_its_library_is_one_line_that_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentimelineio", None)
    with pytest.raises(InputError, match=r"^--format otio needs opentimelineio$") as caught:
        otio.to_timeline(answer(hit()), {"v": media()}, PLAIN)
    assert caught.value.hint == "pip install 'vidx[edit]'"


# M3U


def test_a_playlist_starts_and_stops_players_at_the_hits() -> None:
    text = m3u.to_timeline(answer(hit("v", 61.26, 70)), {"v": media()}, TimelineOptions(handles_s=1.0)).decode()
    assert text.splitlines() == [
        "#EXTM3U",
        "#EXTINF:11,1. v.mp4 0:01:00.3",
        "#EXTVLCOPT:start-time=60.260",
        "#EXTVLCOPT:stop-time=71.000",
        "file:///archive/v.mp4",
    ]


@given(st.lists(st.binary(min_size=1).filter(lambda name: not {0, 47} & set(name)), max_size=5))
def test_every_name_survives_a_playlist_as_an_absolute_url(names: list[bytes]) -> None:
    paths = [b"/archive/" + name for name in names]
    files = {f"v{at}": media(paths={printable(path): path}) for at, path in enumerate(paths)}
    hits = [hit(f"v{at}", path=printable(path)) for at, path in enumerate(paths)]
    lines = m3u.to_timeline(answer(*hits), files, PLAIN).decode().splitlines()
    assert len(lines) == 1 + 4 * len(names)
    urls = [line for line in lines if not line.startswith("#")]
    assert all(url.isascii() and url.startswith("file:///") for url in urls)
    assert [unquote_to_bytes(url.removeprefix("file://")) for url in urls] == paths


def test_formats_of_no_hits_are_empty_and_whole() -> None:
    assert m3u.to_timeline(answer(), {}, PLAIN) == b"#EXTM3U\n"
    assert events(edl_text()) == []
    if "opentimelineio" in sys.modules:
        assert json.loads(otio.to_timeline(answer(), {}, PLAIN))["OTIO_SCHEMA"].startswith("Timeline")
