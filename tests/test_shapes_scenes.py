"""What clips of moving shapes show, what captions say of them, and what training never sees."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidx.train.shapes.captions import (
    Caption,
    Told,
    colour_prompts,
    draw_caption,
    motion_prompts,
    shape_prompts,
    whole_caption,
)
from vidx.train.shapes.data import clips, fitting, frame_times, numbers_of, stream, told_numbers
from vidx.train.shapes.drawing import draw_look, pictures
from vidx.train.shapes.scenes import (
    COLOURS,
    MOTIONS,
    OF_TWO,
    PAIRS,
    REVERSED,
    SHAPES,
    STILL,
    Content,
    Scene,
    draw_contents,
    draw_scene,
    is_held_out,
)
from vidx.train.shapes.states import frame_states

SEEDS = st.integers(0, 2**32 - 1)
TIMES = (np.arange(50) + 0.5) / 50


def scene_of(motion: str, seed: int = 0) -> Scene:
    random = stream(seed)
    while True:
        contents = draw_contents(random)
        if contents[0].motion == motion:
            return draw_scene(random, contents, TIMES)


def test_every_colour_and_motion_keeps_three_shapes_or_four() -> None:
    held_out = [Content(s, c, m) for s in SHAPES for c in COLOURS for m in MOTIONS if is_held_out(Content(s, c, m))]
    assert len(held_out) == 48
    assert len({(content.colour, content.motion) for content in held_out}) == 48
    for field, names in (("shape", SHAPES), ("colour", COLOURS), ("motion", MOTIONS)):
        counts = [sum(getattr(content, field) == name for content in held_out) for name in names]
        assert max(counts) == min(counts)
    assert not any(is_held_out(Content(s, c, STILL)) for s in SHAPES for c in COLOURS)


def test_training_never_draws_what_is_held_out() -> None:
    assert not any(is_held_out(content) for scene in clips(stream(5), 300, side=8).scenes for content in scene.contents)
    with_it = [draw_contents(stream(number), held_out=True) for number in range(50)]
    assert all(any(map(is_held_out, contents)) for contents in with_it)


@pytest.mark.parametrize("motion", MOTIONS)
@given(seed=SEEDS)
def test_things_do_what_their_motion_says(motion: str, seed: int) -> None:
    scene = scene_of(motion, seed)
    thing = scene.things[0]
    begin, end = 0, -1
    along = {"left": -thing.x, "right": thing.x, "up": -thing.y, "down": thing.y, "grow": thing.radius}
    along |= {"shrink": -thing.radius, "appear": thing.opacity, "disappear": -thing.opacity}
    if motion in along:
        assert (np.diff(along[motion]) >= 0).all()
        assert along[motion][end] - along[motion][begin] > 0.1
    if motion in OF_TWO:
        one, two = scene.things
        distance = np.hypot(one.x - two.x, one.y - two.y)
        assert (np.diff(distance) <= 0).all() if motion == "meet" else (np.diff(distance) >= 0).all()
        assert distance.max() - distance.min() > 0.2
        assert distance.min() > 0.9 * (one.radius + two.radius)[0]  # they touch, and do not cover each other
    elif len(scene.things) == 2:
        still = scene.things[1]
        assert all(np.ptp(values) == 0 for values in (still.x, still.y, still.radius, still.opacity))
        assert still.motion == STILL
    for one in scene.things:
        for middle in (one.x, one.y):
            assert (middle - one.radius > -0.05).all()
            assert (middle + one.radius < 1.05).all()


def test_no_single_frame_tells_a_motion_from_its_reverse() -> None:
    """Places and sizes of all frames of 300 clips of both kinds are spread alike."""
    for pair in PAIRS:
        spreads = []
        for motion in pair:
            things = [scene_of(motion, seed).things[0] for seed in range(300)]
            values = np.array([[thing.x, thing.y, thing.radius] for thing in things]).transpose(1, 0, 2).reshape(3, -1)
            quantiles = np.quantile(values, (0.1, 0.25, 0.5, 0.75, 0.9), axis=1)
            spreads.append([*quantiles.ravel(), np.mean([thing.opacity for thing in things])])
        assert np.abs(np.array(spreads[0]) - np.array(spreads[1])).max() < 0.12, pair


def test_what_moves_is_drawn_where_it_is() -> None:
    """The brightest place of the difference to the ground is inside the thing."""
    for seed in range(20):
        random = stream(seed)
        scene = draw_scene(random, (Content("circle", "yellow", "left"),), frame_times())
        look = draw_look(random, scene, 64)
        shown = pictures(random, scene, look).astype(float)
        apart = np.abs(shown - 255 * look.ground).sum(axis=3)
        for frame, thing_x, thing_y in zip(apart, scene.things[0].x, scene.things[0].y, strict=True):
            rows, columns = np.nonzero(frame > 0.5 * frame.max())
            assert abs((columns.mean() + 0.5) / 64 - thing_x) < 0.08
            assert abs((rows.mean() + 0.5) / 64 - thing_y) < 0.08


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_covers_as_much(shape: str) -> None:
    random = stream(1)
    scene = draw_scene(random, (Content(shape, "white", "shake"),), frame_times())
    radius = scene.things[0].radius[0] * 256
    look = draw_look(random, scene, 256)
    black = type(look)(np.zeros_like(look.ground), look.colours, 0.0)
    covered = (pictures(random, scene, black).max(axis=3) > 60).sum(axis=(1, 2))
    assert covered == pytest.approx(np.pi * radius**2, rel=0.05)


def test_a_batch_is_the_same_each_time_and_another_by_another_number() -> None:
    one, again, other = (clips(stream(3, number), 4) for number in (1, 1, 2))
    assert np.array_equal(one.pictures, again.pictures)
    assert not np.array_equal(one.pictures, other.pictures)


# Captions


@given(SEEDS)
def test_a_caption_is_true_of_its_own_scene(seed: int) -> None:
    random = stream(seed)
    contents = draw_contents(random)
    assert draw_caption(random, contents).fits(contents)
    assert whole_caption(contents).fits(contents)
    assert whole_caption(contents).fits(contents[::-1])  # whichever is named first


@given(st.lists(SEEDS, min_size=1, max_size=12))
def test_which_captions_fit_which_scenes_is_the_same_by_numbers_and_by_names(seeds: list[int]) -> None:
    scenes, captions = [], []
    for seed in seeds:
        random = stream(seed)
        scenes.append(draw_contents(random))
        captions.append(draw_caption(random, scenes[-1]))
    found = fitting(told_numbers(captions), numbers_of(scenes))
    assert found.tolist() == [[caption.fits(contents) for contents in scenes] for caption in captions]


@given(SEEDS)
def test_a_whole_caption_tells_a_motion_from_its_reverse_and_things_from_others(seed: int) -> None:
    contents = draw_contents(stream(seed))
    turned = tuple(Content(c.shape, c.colour, REVERSED.get(c.motion, c.motion)) for c in contents)
    has_reverse = REVERSED[contents[0].motion] != contents[0].motion
    assert whole_caption(contents).fits(turned) != has_reverse
    assert (whole_caption(contents).text == whole_caption(turned).text) != has_reverse


def test_whole_captions_say_all_in_plain_words() -> None:
    one = (Content("circle", "orange", "left"),)
    assert whole_caption(one).text == "an orange circle moves to the left"
    two = (Content("cross", "red", "blink"), Content("square", "blue", STILL))
    assert whole_caption(two).text == "a red cross blinks and a blue square stands still"
    both = (Content("cross", "red", "meet"), Content("square", "blue", "meet"))
    assert whole_caption(both).text == "a red cross and a blue square come together"
    texts = {
        whole_caption((Content(s, c, m),)).text for s in SHAPES for c in COLOURS for m in MOTIONS if m not in OF_TWO
    }
    assert len(texts) == 4 * 8 * 10
    assert [len(set(prompts())) for prompts in (motion_prompts, shape_prompts, colour_prompts)] == [12, 4, 8]


def test_a_caption_of_nothing_in_particular_fits_everything() -> None:
    vague = Caption("something", (Told(None, None, None),))
    assert all(vague.fits(draw_contents(stream(seed))) for seed in range(30))


# What frames are said to show


@given(SEEDS)
def test_states_say_what_is_where(seed: int) -> None:
    random = stream(seed)
    contents = draw_contents(random)
    scene = draw_scene(random, contents, frame_times())
    states = frame_states([scene], cells=8)
    for thing in scene.things:
        colour = COLOURS.index(thing.colour)
        assert states.shown[:, colour].tolist() == (thing.opacity > 0.5).tolist()
        assert states.places[:, colour, 0].numpy() == pytest.approx(2 * thing.x - 1, abs=1e-5)
        assert states.shapes[:, colour].tolist() == [SHAPES.index(thing.shape)] * 8
    others = [number for number, name in enumerate(COLOURS) if name not in {thing.colour for thing in scene.things}]
    assert states.shown[:, others].sum() == 0
    on_top = scene.things[-1]  # drawn last
    for frame in range(8):
        if on_top.opacity[frame] > 0.5 and 0 <= on_top.x[frame] < 1 and 0 <= on_top.y[frame] < 1:
            patch = int(on_top.y[frame] * 8) * 8 + int(on_top.x[frame] * 8)
            assert states.patch_colours[frame, patch] == 1 + COLOURS.index(on_top.colour)
            assert states.patch_shapes[frame, patch] == SHAPES.index(on_top.shape)
