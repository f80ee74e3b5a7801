"""Frames are resized, cropped and normalised as each code base does it, to the bit."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vidx import decoders, pixels
from vidx.pixels import CLIP, CLIP_MMACTION2, IMAGENET, OPENCV, UNIT, fit, normalise, resize_opencv, three_crops
from vidx.schema.records import Preprocess

# First digits of the sha256 of what opencv-python-headless 4.14.0 and 5.0.0 alike make of `mixed`, INTER_LINEAR.
RESIZED_BY_OPENCV = [
    ((320, 241), (340, 256), "2d4fd2eab327ff22"),
    ((171, 300), (256, 449), "778bd0e20e82c130"),
    ((64, 48), (32, 24), "72e6cbd30c754220"),
    ((90, 60), (30, 20), "883514381a477e71"),
    ((37, 53), (37, 53), "b426e4a2370c2172"),
    ((50, 40), (213, 171), "4c70a04d271a5eac"),
    ((640, 360), (398, 224), "708a763484e3c235"),
    ((2, 2), (5, 9), "863d422ef53312fb"),
    ((1, 7), (4, 3), "9a345573f9dd0c1a"),
]
SIDES = st.integers(8, 120)


def mixed(width: int, height: int) -> np.ndarray:
    """A picture whose neighbouring pixels have nothing in common."""
    number = np.arange(width * height * 3, dtype=np.uint64)
    return ((number * np.uint64(2654435761)) >> np.uint64(13)).astype(np.uint8).reshape(height, width, 3)


def places(width: int, height: int) -> np.ndarray:
    """A picture whose red is the column and whose green the row."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, columns], axis=-1).astype(np.uint8)


def origins(crops: np.ndarray) -> list[tuple[int, int]]:
    """Column and row of the first pixel of crops of `places`."""
    return [(int(crop[0, 0, 0]), int(crop[0, 0, 1])) for crop in crops]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["preprocess-landscape", "preprocess-portrait"])
def test_every_view_is_that_of_the_original_code(shared: Path, name: str) -> None:
    from vidx.encoders._reference import compare

    compared = list(compare(shared / "reference" / f"{name}.safetensors"))
    assert len(compared) >= 6
    assert not [one for one in compared if not one.within]
    assert all(one.difference == 0 for one in compared if one.output.endswith("_u8"))


@pytest.mark.parametrize(("size", "resized", "digest"), RESIZED_BY_OPENCV)
def test_pixels_are_those_of_opencv(size: tuple[int, int], resized: tuple[int, int], digest: str) -> None:
    picture = resize_opencv(mixed(*size), *resized)
    assert picture.shape == (resized[1], resized[0], 3)
    assert hashlib.sha256(picture.tobytes()).hexdigest().startswith(digest)


@given(width=SIDES, height=SIDES)
def test_half_the_size_is_the_mean_of_four_pixels_as_opencv_rounds_it(width: int, height: int) -> None:
    picture = mixed(2 * width, 2 * height)
    four = picture.reshape(height, 2, width, 2, 3).astype(int).sum(axis=(1, 3))
    assert np.array_equal(resize_opencv(picture, width, height), (four + 2) // 4)


@pytest.mark.slow
@settings(deadline=None)
@given(width=SIDES, height=SIDES, short=st.integers(8, 90), data=st.data())
def test_pil_filters_are_torchvisions_resize_and_centre_crop(
    width: int, height: int, short: int, data: st.DataObject
) -> None:
    from torchvision.transforms import v2

    crop = data.draw(st.integers(4, short))
    name = data.draw(st.sampled_from(["bicubic", "bilinear"]))
    picture = mixed(width, height)
    theirs = v2.Compose([v2.Resize(short, v2.InterpolationMode(name)), v2.CenterCrop(crop)])(Image.fromarray(picture))
    assert np.array_equal(fit(picture, Preprocess(short, crop, name)), np.asarray(theirs))


@given(width=SIDES, height=SIDES, short=st.integers(8, 90), data=st.data())
def test_opencv_stands_for_mmcvs_size_and_crop(width: int, height: int, short: int, data: st.DataObject) -> None:
    crop = data.draw(st.integers(4, short))
    scale = short / min(width, height)
    new_width, new_height = int(width * scale + 0.5), int(height * scale + 0.5)
    assert min(new_width, new_height) == short
    picture = mixed(width, height)
    whole = resize_opencv(picture, new_width, new_height)
    left, top = (new_width - crop) // 2, (new_height - crop) // 2
    assert np.array_equal(fit(picture, Preprocess(short, crop, OPENCV)), whole[top : top + crop, left : left + crop])


def test_the_long_side_is_truncated_by_torchvision_and_rounded_by_mmcv() -> None:
    wide = mixed(199, 100)  # 99.5 by 50
    assert np.array_equal(three_crops(wide, Preprocess(50, 50, OPENCV))[1], resize_opencv(wide, 100, 50)[:, 50:])
    ninety_nine = np.asarray(Image.fromarray(wide).resize((99, 50), Image.Resampling.BICUBIC))
    assert np.array_equal(fit(wide, Preprocess(50, 50)), ninety_nine[:, 24:74])


def test_the_origin_of_the_crop_is_rounded_by_torchvision_and_floored_by_mmcv() -> None:
    picture = places(53, 51)
    assert origins([fit(picture, Preprocess(51, 50))]) == [(2, 0)]  # 1.5 and 0.5, to even
    assert origins([fit(picture, Preprocess(51, 50, OPENCV))]) == [(1, 0)]


@given(width=st.integers(40, 200), height=st.integers(40, 200), crop=st.integers(8, 40))
def test_three_crops_of_text4vis_are_left_right_and_middle(width: int, height: int, crop: int) -> None:
    step, top = (width - crop) // 4, 2 * ((height - crop) // 4)
    crops = three_crops(places(width, height), Preprocess(min(width, height), crop))
    assert origins(crops) == [(0, top), (4 * step, top), (2 * step, top)]


@given(short=st.integers(8, 60), spare=st.integers(0, 140), is_portrait=st.booleans())
def test_three_crops_of_mmaction_are_both_ends_and_the_middle(short: int, spare: int, is_portrait: bool) -> None:
    size = (short, short + spare) if is_portrait else (short + spare, short)
    crops = three_crops(places(*size), Preprocess(short, short, OPENCV))
    along = [0, 2 * (spare // 2), spare // 2]
    assert origins(crops) == [(0, place) if is_portrait else (place, 0) for place in along]


def test_three_crops_of_mmaction_leave_nothing_of_the_short_side() -> None:
    with pytest.raises(ValueError, match="short side of 32 pixels, not 40"):
        three_crops(mixed(80, 60), Preprocess(40, 32, OPENCV))


def test_levels_are_normalised_channel_by_channel_and_channels_come_first() -> None:
    clips = mixed(12, 20).reshape(2, 3, 5, 8, 3)
    for constants in (CLIP, IMAGENET, UNIT, CLIP_MMACTION2):
        inputs = normalise(clips, constants)
        assert inputs.dtype == np.float32
        assert inputs.shape == (2, 3, 3, 5, 8)
        for channel, (mean, std) in enumerate(zip(constants.mean, constants.std, strict=True)):
            expected = (clips[..., channel] / 255 - mean) / std
            np.testing.assert_allclose(inputs[:, :, channel], expected, rtol=0, atol=1e-6)


def test_constants_are_the_published_ones_in_levels_of_255() -> None:
    levels = {"IMAGENET": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))}
    levels["CLIP_MMACTION2"] = ((122.771, 116.746, 104.093), (68.5, 66.632, 70.323))
    for name, (mean, std) in levels.items():
        np.testing.assert_allclose(np.multiply(getattr(pixels, name).mean, 255), mean, rtol=1e-12)
        np.testing.assert_allclose(np.multiply(getattr(pixels, name).std, 255), std, rtol=1e-12)
    np.testing.assert_allclose(CLIP.mean, CLIP_MMACTION2.mean, atol=1e-5)


def test_with_three_crops_a_picture_becomes_its_three_views() -> None:
    picture = mixed(90, 70)
    for filter in ("bicubic", OPENCV):
        assert np.array_equal(
            fit(picture, Preprocess(32, 32, filter, crops=3)), three_crops(picture, Preprocess(32, 32, filter))
        )


def test_decoders_fit_pictures_in_the_same_way() -> None:
    for name in ("bicubic", "bilinear", OPENCV):
        preprocess = Preprocess(40, 32, name)
        assert np.array_equal(decoders.fit(mixed(90, 70), preprocess), fit(mixed(90, 70), preprocess))


def test_pixels_need_no_decoder_and_no_network_library() -> None:
    code = "import sys, vidx.pixels; sys.exit(any(m in sys.modules for m in ('torch', 'av', 'cv2', 'torchvision')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
