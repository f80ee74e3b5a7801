"""Timecode against the rules of SMPTE ST 12-1, and from times to frames."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidx.export._timecode import Timecode, frames_of, has_timecode, rate_text, start_of

NTSC = Fraction(1000, 1001)
DROP_30, DROP_60 = Timecode(30 * NTSC, drop=True), Timecode(60 * NTSC, drop=True)
COUNTINGS = [
    *(Timecode(Fraction(rate)) for rate in (24, 25, 30, 48, 50, 60, 100)),
    *(Timecode(rate * NTSC) for rate in (24, 30, 60)),
    DROP_30,
    DROP_60,
]


@pytest.mark.parametrize(
    ("counting", "frame", "text"),
    [
        (DROP_30, 0, "00:00:00;00"),
        (DROP_30, 1799, "00:00:59;29"),
        (DROP_30, 1800, "00:01:00;02"),
        (DROP_30, 17981, "00:09:59;29"),
        (DROP_30, 17982, "00:10:00;00"),
        (DROP_30, 107892, "01:00:00;00"),
        (DROP_30, 2589407, "23:59:59;29"),
        (DROP_30, 2589408, "00:00:00;00"),
        (DROP_60, 3599, "00:00:59;59"),
        (DROP_60, 3600, "00:01:00;04"),
        (DROP_60, 35964, "00:10:00;00"),
        (DROP_60, 215784, "01:00:00;00"),
        (Timecode(30 * NTSC), 1800, "00:01:00:00"),
        (Timecode(24 * NTSC), 24 * 3600, "01:00:00:00"),
        (Timecode(Fraction(25)), -1, "23:59:59:24"),
    ],
)
def test_a_frame_has_the_timecode_that_the_standard_gives_it(counting: Timecode, frame: int, text: str) -> None:
    assert counting.text(frame) == text
    assert counting.frame(text) == frame % counting.day


def counted(counting: Timecode, dropped: int) -> Iterator[str]:
    """Timecodes of an hour in order, by leaving numbers out as the standard words it."""
    separator = ";" if counting.drop else ":"
    for minute in range(60):
        for second in range(60):
            for frame in range(counting.base):
                if not (second == 0 and minute % 10 and frame < dropped):
                    yield f"00:{minute:02d}:{second:02d}{separator}{frame:02d}"


@pytest.mark.slow
@pytest.mark.parametrize(("counting", "dropped"), [(DROP_30, 2), (DROP_60, 4), (Timecode(30 * NTSC), 0)])
def test_an_hour_of_timecode_counts_as_the_rule_says_word_by_word(counting: Timecode, dropped: int) -> None:
    texts = list(counted(counting, dropped))
    assert [counting.text(frame) for frame in range(len(texts))] == texts
    assert counting.text(len(texts)) == counting.text(0).replace("00:", "01:", 1)


@given(st.sampled_from(COUNTINGS), st.integers(0, 30 * 24 * 3600))
def test_a_timecode_reads_back_as_its_frame(counting: Timecode, frame: int) -> None:
    assert counting.frame(counting.text(frame)) == frame % counting.day


@given(st.sampled_from([DROP_30, DROP_60]), st.integers(0, 86_000))
def test_drop_frame_timecode_keeps_up_with_the_clock(counting: Timecode, second: int) -> None:
    hours, minutes, seconds = map(int, counting.text(round(second * counting.rate))[:8].split(":"))
    assert abs(hours * 3600 + minutes * 60 + seconds - second) <= 1


@pytest.mark.parametrize(
    ("counting", "text"),
    [
        (DROP_30, "00:01:00;00"),
        (DROP_30, "00:01:00;01"),
        (DROP_60, "00:59:00;03"),
        (DROP_30, "00:00:00;30"),
        (Timecode(Fraction(25)), "00:00:00:25"),
        (Timecode(Fraction(25)), "24:00:00:00"),
        (Timecode(Fraction(25)), "00:00:60:00"),
        (Timecode(Fraction(25)), "noon"),
    ],
)
def test_a_timecode_that_does_not_exist_is_refused(counting: Timecode, text: str) -> None:
    with pytest.raises(ValueError, match="no timecode"):
        counting.frame(text)


@pytest.mark.parametrize("rate", [Fraction(25, 2), Fraction(2997, 100), Fraction(120)])
def test_rates_that_two_digits_and_whole_seconds_cannot_count_have_no_timecode(rate: Fraction) -> None:
    assert not has_timecode(rate)
    with pytest.raises(ValueError, match="no such timecode"):
        Timecode(rate)


def test_only_two_rates_drop() -> None:
    with pytest.raises(ValueError, match="no such timecode"):
        Timecode(Fraction(30), drop=True)


@pytest.mark.parametrize(
    ("timecode", "rate", "expected"),
    [
        (None, 30 * NTSC, (False, 0)),
        ("01:00:00;00", 30 * NTSC, (True, 107892)),
        ("01:00:00:00", 30 * NTSC, (False, 108000)),
        ("01:00:00;00", Fraction(25), (False, 90000)),  # there is nothing to drop at 25
        ("00:00:00:29", Fraction(25), (False, 0)),
        ("garbage", Fraction(25), (False, 0)),
    ],
)
def test_a_file_counts_from_its_start_timecode_and_from_zero_where_that_is_none(
    timecode: str | None, rate: Fraction, expected: tuple[bool, int]
) -> None:
    counting, start = start_of(timecode, rate)
    assert (counting.drop, start) == expected


@given(
    st.sampled_from([counting.rate for counting in COUNTINGS]),
    st.lists(st.floats(0, 100), min_size=2, max_size=2).map(sorted),
)
def test_a_range_of_frames_covers_its_moment_and_no_frame_more(rate: Fraction, moment: list[float]) -> None:
    start_s, end_s = moment
    first, stop = frames_of(start_s, end_s, rate, 10**6)
    near = 0.002 / float(rate)  # a time this close to the edge of a frame is on it
    assert first / rate <= start_s + near
    assert (first + 1) / rate >= start_s - near
    assert stop / rate >= end_s - near
    assert stop == first + 1 or (stop - 1) / rate <= end_s + near


@given(st.floats(-1e4, 1e4), st.floats(0, 1e4), st.integers(1, 1000))
def test_a_range_stays_inside_the_file_and_is_never_empty(start_s: float, length_s: float, n_frames: int) -> None:
    first, stop = frames_of(start_s, start_s + length_s, Fraction(25), n_frames)
    assert 0 <= first < stop <= n_frames


def test_a_time_that_rounding_put_beside_the_edge_of_a_frame_is_on_it() -> None:
    rate = 30 * NTSC
    for number in range(2000):
        edge_s = float(number / rate)
        assert frames_of(edge_s * (1 - 1e-12), edge_s + 1, rate, 10**6)[0] == number
        assert frames_of(0.0, edge_s * (1 + 1e-12), rate, 10**6)[1] == max(1, number)


def test_rates_are_written_as_people_do() -> None:
    assert [rate_text(rate) for rate in (Fraction(25), 30 * NTSC, 24 * NTSC, Fraction(25, 2))] == [
        *("25", "29.97", "23.976"),
        "12.5",
    ]
