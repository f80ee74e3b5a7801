"""Which labels a clip, a stretch of time and a video get, against slow rules written apart from the fast ones."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vidx.schema.tag_tables import NUMBERED
from vidx.search._tag_rows import CLIP, SEGMENT, VIDEO, Block, Encoding, Rows, Rule, rows_of
from vidx.search._tag_scores import MULTI, SINGLE, Scored

# Few values, so that there are ties, and some that lie right on a threshold.
CHANCES = np.array([0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 1], np.float32)
CONSTANTS = dict.fromkeys(("encoder", "weights_digest", "prompts_digest", "tag_set", "run_id"), "same")
Row = tuple[int, int, float, float, int, float, int]  # video, clip, start, end, label, probability, rank


def block(videos: list[int], times_s: list[tuple[float, float]] | None = None) -> Block:
    """Clips of ten seconds one after another, where no times are given."""
    if times_s is None:
        numbers = [at - videos.index(video) for at, video in enumerate(videos)]
        times_s = [(10.0 * number, 10.0 * number + 10) for number in numbers]
    of = np.array(videos, np.int64)
    return Block(of, 100 + np.arange(len(of)), np.array(times_s, np.float64), np.zeros((len(of), 4), np.float32))


def scored(probabilities: object, background: object = None) -> Scored:
    """Cosines that tell which cell they are of."""
    chances = np.asarray(probabilities, np.float32)
    none = np.zeros(len(chances), np.float32) if background is None else np.asarray(background, np.float32)
    return Scored(np.arange(chances.size, dtype=np.float32).reshape(chances.shape), chances, none)


def rule(thresholds: object, n_told: int | None = None, top: int = 5, mode: str = SINGLE) -> Rule:
    least = np.asarray(thresholds, np.float32)
    return Rule(least, len(least) if n_told is None else n_told, top, mode)


def told(rows: Rows) -> list[Row]:
    columns = (rows.videos, rows.ids, *rows.times_s.T, rows.labels, rows.probabilities, rows.ranks)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def slow_units(videos: list[int], ids: list[int], times_s: np.ndarray, found: Scored, how: Rule) -> list[Row]:
    """Sort all labels of each clip or video, keep the best, drop those that do not pass; then its parents."""
    rows = []
    for at, (video, clip) in enumerate(zip(videos, ids, strict=True)):
        chances, own = found.probabilities[at].tolist(), []
        n = len(chances)
        for group in (range(how.n_told), range(how.n_told, n)):
            best = sorted(group, key=lambda column: (-chances[column], column))[: how.top]
            kept = [c for c in best if chances[c] >= how.thresholds[c] and chances[c] >= found.background[at]]
            own += [(label, chances[label], rank) for rank, label in enumerate(kept, 1)]
        own = own or [(-1, max(chances[: how.n_told]), 0)]
        rows += [(video, clip, *times_s[at].tolist(), *each) for each in own]
    return rows


@st.composite
def cases(draw: st.DrawFn, times: bool = False) -> tuple[Block, Scored, Rule]:
    """A few videos, and chances with many ties."""
    sizes = draw(st.lists(st.integers(1, 7), min_size=1, max_size=4))
    videos = [video for video, size in enumerate(sizes) for _ in range(size)]
    n_told, n_parents = draw(st.integers(1, 40)), draw(st.integers(0, 3))
    chance = st.sampled_from(CHANCES.tolist())
    table = draw(hnp.arrays(np.float32, (len(videos), n_told + n_parents), elements=chance))
    least = draw(hnp.arrays(np.float32, n_told + n_parents, elements=st.sampled_from([0, 0.25, 0.5, 0.75, np.inf])))
    none = draw(hnp.arrays(np.float32, len(videos), elements=st.sampled_from([0, 0, 0.25, 0.5])))
    times_s = []
    for size in sizes:
        length = draw(st.sampled_from([2.0, 10.0, 12.0]))  # of clips, at a stride of 4, 10 or 12: overlaps and gaps
        starts_s = np.cumsum([draw(st.sampled_from([4.0, 10.0, 10.03, 12.0, 30.0])) for _ in range(size)])
        times_s += [(start_s, start_s + length) for start_s in starts_s.tolist()]
    mode = draw(st.sampled_from([SINGLE, MULTI]))
    how = Rule(least, n_told, draw(st.sampled_from([1, 2, 3, 5, 50])), mode)
    return block(videos, times_s if times else None), scored(table, none), how


@given(cases())
def test_a_clip_gets_its_best_labels(case: tuple[Block, Scored, Rule]) -> None:
    clips, found, how = case
    rows = rows_of(CLIP, clips, found, how)
    assert told(rows) == slow_units(clips.videos.tolist(), clips.ids.tolist(), clips.times_s, found, how)
    at = rows.ids - 100
    nearest = found.probabilities[:, : how.n_told].argmax(axis=1)
    columns = np.where(rows.labels < 0, nearest[at], rows.labels)
    np.testing.assert_array_equal(rows.cosines, found.cosines[at, columns])
    np.testing.assert_array_equal(rows.thresholds, how.thresholds[columns])


def test_of_many_equal_labels_the_first_are_kept() -> None:
    """As where a scale of 100 makes the chances of hundreds of labels zero, or one."""
    for value in (0.0, 1.0):
        rows = rows_of(CLIP, block([0, 1]), scored(np.full((2, 400), value)), rule(np.zeros(400), top=3))
        assert rows.labels.tolist() == [0, 1, 2, 0, 1, 2]
        assert rows.ranks.tolist() == [1, 2, 3, 1, 2, 3]
    few = np.zeros((1, 400))
    few[0, [399, 57]] = [0.5, 0.25]
    assert rows_of(CLIP, block([0]), scored(few), rule(np.zeros(400), top=4)).labels.tolist() == [399, 57, 0, 1]


@given(cases(times=True))
def test_a_video_gets_the_mean_of_its_clips_where_labels_compete_and_their_best_else(
    case: tuple[Block, Scored, Rule],
) -> None:
    clips, found, how = case
    videos = sorted(set(clips.videos.tolist()))
    chances, none, times_s = [], [], []
    for video in videos:
        own = clips.videos == video
        table = found.probabilities[own].astype(np.float64)
        chances.append(table.mean(axis=0) if how.mode == SINGLE else table.max(axis=0))
        none.append(found.background[own].astype(np.float64).mean())
        times_s.append((clips.times_s[own, 0].min(), clips.times_s[own, 1].max()))
    # Means of eighths over at most seven clips: what is equal in double precision must be so in single.
    whole = scored(np.array(chances), np.array(none))
    rows = rows_of(VIDEO, clips, found, how)
    by_hand = slow_units(videos, [-1] * len(videos), np.array(times_s), whole, how)
    assert {row[0] for row in told(rows)} == set(videos)
    for mine, theirs in zip(told(rows), by_hand, strict=True):
        assert mine[:5] == theirs[:5]
        assert mine[5] == pytest.approx(theirs[5], abs=1e-5)
        assert mine[6] == theirs[6]


def test_the_score_of_a_video_is_a_mean_or_a_maximum_as_its_probability_is() -> None:
    found = Scored(np.array([[0.1, 0.4], [0.3, 0.2]], np.float32), np.array([[0.2, 0.8], [0.6, 0.4]], np.float32), None)
    found = Scored(found.cosines, found.probabilities, np.zeros(2, np.float32))
    single = rows_of(VIDEO, block([3, 3]), found, rule([0, 0]))
    multi = rows_of(VIDEO, block([3, 3]), found, rule([0, 0], mode=MULTI))
    np.testing.assert_allclose(single.cosines, [0.3, 0.2], atol=1e-6)
    np.testing.assert_allclose(single.probabilities, [0.6, 0.4], atol=1e-6)
    np.testing.assert_allclose(multi.cosines, [0.4, 0.3], atol=1e-6)
    np.testing.assert_allclose(multi.probabilities, [0.8, 0.6], atol=1e-6)
    assert (single.ids == -1).all()
    assert single.times_s.tolist() == [[0, 20], [0, 20]]


def test_what_matches_nothing_is_told_beside_what_came_nearest() -> None:
    rows = rows_of(CLIP, block([0, 0]), scored([[0.3, 0.4], [0.9, 0.1]]), rule([0.5, 0.6]))
    assert told(rows) == [
        (0, 100, 0.0, 10.0, -1, pytest.approx(0.4), 0),
        (0, 101, 10.0, 20.0, 0, pytest.approx(0.9), 1),
    ]
    assert rows.thresholds.tolist() == pytest.approx([0.6, 0.5])
    # The background is likelier than every label, though all thresholds are reached.
    rows = rows_of(CLIP, block([0]), scored([[0.3, 0.2]], [0.5]), rule([0, 0]))
    assert told(rows) == [(0, 100, 0.0, 10.0, -1, pytest.approx(0.3), 0)]


def test_a_label_with_the_very_threshold_is_given() -> None:
    for least in (0.1, 0.3, 0.7):
        rows = rows_of(CLIP, block([0]), scored([[np.float32(least)]]), rule([least]))
        assert rows.labels.tolist() == [0]


def test_parents_have_ranks_of_their_own() -> None:
    rows = rows_of(CLIP, block([0]), scored([[0.1, 0.6, 0.3, 0.4, 0.6]]), rule([0.2] * 5, n_told=3))
    assert list(zip(rows.labels, rows.ranks, strict=True)) == [(1, 1), (2, 2), (4, 1), (3, 2)]


def slow_segments(clips: Block, found: Scored, how: Rule) -> set[tuple[int, float, float, int, float, int]]:
    """Video, start, end, label, probability and rank of every stretch: each clip that reaches the threshold spreads.

    A clip touches the next of its video where that begins at most 0.05 s after all before it have ended.
    """
    segments = set()
    n = len(clips.ids)
    for label in range(len(how.thresholds)):
        chances, least = found.probabilities[:, label].tolist(), float(how.thresholds[label])

        def touches(clip: int) -> bool:
            """Whether the clip and the one after it do."""
            same = [at for at in range(clip + 1) if clips.videos[at] == clips.videos[clip]]
            return bool(
                clips.videos[clip] == clips.videos[clip + 1]
                and clips.times_s[clip + 1, 0] <= max(clips.times_s[at, 1] for at in same) + 0.05
            )

        for seed in range(n):
            if chances[seed] < least or chances[seed] < found.background[seed]:
                continue
            first = last = seed
            while first > 0 and touches(first - 1) and chances[first - 1] >= least / 2:
                first -= 1
            while last + 1 < n and touches(last) and chances[last + 1] >= least / 2:
                last += 1
            span = range(first, last + 1)
            peak = min(span, key=lambda clip: (-chances[clip], clip))
            group = range(how.n_told) if label < how.n_told else range(how.n_told, len(how.thresholds))
            rank = 1 + sum(found.probabilities[peak, other] > chances[peak] for other in group)
            end_s = max(clips.times_s[clip, 1] for clip in span)
            segments.add((int(clips.videos[seed]), float(clips.times_s[first, 0]), end_s, label, chances[peak], rank))
    return segments


@given(cases(times=True))
def test_a_stretch_begins_at_a_threshold_and_goes_on_down_to_half_of_it(case: tuple[Block, Scored, Rule]) -> None:
    clips, found, how = case
    rows = rows_of(SEGMENT, clips, found, how)
    mine = [(video, start_s, end_s, *rest) for video, _, start_s, end_s, *rest in told(rows)]
    assert len(mine) == len(set(mine))
    assert set(mine) == slow_segments(clips, found, how)
    assert (rows.ids == -1).all()
    assert (rows.thresholds == how.thresholds[rows.labels]).all()


def stretches(chances: list[float], times_s: list[tuple[float, float]] | None = None) -> list[tuple[float, float]]:
    """Starts and ends of the stretches of one label of threshold 0.5 in one video."""
    table = [[chance] for chance in chances]
    rows = rows_of(SEGMENT, block([0] * len(chances), times_s), scored(table), rule([0.5]))
    return [tuple(times) for times in rows.times_s.tolist()]


def test_stretches_by_hand() -> None:
    assert stretches([0.1, 0.3, 0.6, 0.3, 0.1, 0.3]) == [(10, 40)]
    assert stretches([0.3, 0.3, 0.3]) == []
    assert stretches([0.5, 0.25, 0.24, 0.5]) == [(0, 20), (30, 40)]
    assert stretches([0.6, 0.6], [(0, 10), (10.2, 20)]) == [(0, 10), (10.2, 20)]
    assert stretches([0.6, 0.6], [(0, 10), (10.04, 20)]) == [(0, 20)]
    assert stretches([0.6, 0.1, 0.6], [(0, 10), (2.5, 12.5), (5, 15)]) == [(0, 10), (5, 15)]
    assert stretches([0.6, 0.3, 0.3, 0.1], [(0, 10), (2.5, 12.5), (5, 15), (7.5, 17.5)]) == [(0, 15)]


def test_a_stretch_is_told_by_its_best_clip() -> None:
    found = Scored(
        np.array([[0.1, 0], [0.2, 0], [0.3, 0]], np.float32),
        np.array([[0.6, 0.7], [0.8, 0.9], [0.7, 0.1]], np.float32),
        np.zeros(3, np.float32),
    )
    rows = rows_of(SEGMENT, block([4, 4, 4]), found, rule([0.5, 1]))
    assert told(rows) == [(4, -1, 0.0, 30.0, 0, pytest.approx(0.8), 2)]
    assert rows.cosines.tolist() == pytest.approx([0.2])


@pytest.mark.parametrize("level", [CLIP, SEGMENT, VIDEO])
def test_rows_become_the_columns_of_the_table(level: str) -> None:
    clips = block([0, 0, 2])
    rows = rows_of(level, clips, scored([[0.9, 0.2], [0.1, 0.6], [0.1, 0.2]]), rule([0.5, 0.5]))
    paths = pa.array(["/a.mp4", "/b.mp4", None])
    made = Encoding(["climb", "sit"], pa.array(["v0", "v1", "v2"]), paths, CONSTANTS).batch(rows)
    assert made.schema == NUMBERED
    table = made.to_pylist()
    assert len(table) == len(rows.labels)
    for at, row in enumerate(table):
        assert row["video_id"] == f"v{rows.videos[at]}"
        assert row["path"] == {0: "/a.mp4", 2: None}[int(rows.videos[at])]
        assert row["clip_id"] == (int(rows.ids[at]) if level == CLIP else None)
        assert (row["start_s"], row["end_s"]) == tuple(rows.times_s[at])
        assert row["label"] == ([*("climb", "sit"), None][rows.labels[at]])
        assert row["rank"] == (int(rows.ranks[at]) or None)
        assert (row["level"], row["encoder"], row["run_id"]) == (level, "same", "same")
        assert (row["score"], row["probability"]) == (rows.cosines[at], rows.probabilities[at])
        assert row["threshold"] == rows.thresholds[at]
    if level == CLIP:
        assert [row["label"] for row in table] == ["climb", "sit", None]


def test_where_no_label_holds_there_are_no_stretches_and_that_is_no_error() -> None:
    rows = rows_of(SEGMENT, block([0, 0, 2]), scored(np.zeros((3, 2))), rule([0.5, np.inf]))
    videos, paths = pa.array(["v0", "v1", "v2"]), pa.array(["/a"] * 3)
    made = Encoding(["a", "b"], videos, paths, CONSTANTS).batch(rows)
    assert (made.num_rows, made.schema) == (0, NUMBERED)
