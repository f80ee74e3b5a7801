"""How a frame becomes an encoder's input, as each code base does it: resize, crops, normalisation.

torchvision with PIL (OpenAI CLIP, Text4Vis, ActionCLIP): an antialiased filter, the long side truncated, the origin of
the crop rounded. mmcv with OpenCV (X-CLIP, MMAction2): bilinear without antialiasing, the long side rounded, the origin
floored. On detailed frames the two differ by several grey levels. Pictures are upright RGB, uint8 (height, width, 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from vidx.schema.records import Preprocess

OPENCV = "opencv"  # the filter that stands for mmcv's rules
SQUASH = "squash-"  # before a filter: the whole picture is made square, whatever its shape (SigLIP)
_PIL_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

_WEIGHT_BITS = 11  # of OpenCV's fixed-point weights (INTER_RESIZE_COEF_BITS)


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of red, green and blue, where levels go from 0 to 1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


CLIP = Normalisation((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
UNIT = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
# CLIP's, as MMAction2's configurations have them: in levels of 0 to 255, to three decimals.
CLIP_MMACTION2 = Normalisation(
    (122.771 / 255, 116.746 / 255, 104.093 / 255), (68.500 / 255, 66.632 / 255, 70.323 / 255)
)
HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
NORMALISATIONS = {
    "half": HALF,
    "clip": CLIP,
    "clip-mmaction2": CLIP_MMACTION2,
    "imagenet": IMAGENET,
    "unit": UNIT,
}  # as a space names them


def fit(picture: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """The centre of a picture whose short side was brought to size: uint8 (crop_px, crop_px, 3); or `three_crops`."""
    if preprocess.crops == 3:
        return three_crops(picture, preprocess)
    crop_px = preprocess.crop_px
    width, height = _resized_size(picture, preprocess)
    if preprocess.filter == OPENCV:
        top, left = (height - crop_px) // 2, (width - crop_px) // 2
        return resize_opencv(picture, width, height, slice(top, top + crop_px), slice(left, left + crop_px))
    top, left = round((height - crop_px) / 2), round((width - crop_px) / 2)
    return _resize_pil(picture, width, height, preprocess.filter)[top : top + crop_px, left : left + crop_px]


def three_crops(picture: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """The three test views of a picture: uint8 (3, crop_px, crop_px, 3), the middle one last.

    With a PIL filter left, right and middle at multiples of a quarter of the spare width (Text4Vis,
    GroupFullResSample); with `opencv` the two ends and the middle of the long side (MMAction2 and X-CLIP, ThreeCrop),
    for which `short_side_px` must be `crop_px`: else ValueError.
    """
    crop_px = preprocess.crop_px
    width, height = _resized_size(picture, preprocess)
    if preprocess.filter != OPENCV:
        resized = _resize_pil(picture, width, height, preprocess.filter)
        top, step = 2 * ((height - crop_px) // 4), (width - crop_px) // 4
        origins = [(top, 0), (top, 4 * step), (top, 2 * step)]
    elif preprocess.short_side_px == crop_px:
        resized = resize_opencv(picture, width, height)
        down, right = (height - crop_px) // 2, (width - crop_px) // 2  # one of them is 0
        origins = [(0, 0), (2 * down, 2 * right), (down, right)]
    else:
        raise ValueError(f"three crops need a short side of {crop_px} pixels, not {preprocess.short_side_px}")
    return np.stack([resized[top : top + crop_px, left : left + crop_px] for top, left in origins])


def normalise(pictures: np.ndarray, normalisation: Normalisation) -> np.ndarray:
    """uint8 (..., height, width, 3) to float32 (..., 3, height, width)."""
    levels = np.moveaxis(pictures, -1, -3).astype(np.float32) / np.float32(255)
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (normalisation.mean, normalisation.std))
    result: np.ndarray = (levels - mean) / std
    return result


def resize_opencv(
    picture: np.ndarray, width: int, height: int, rows: slice = slice(None), columns: slice = slice(None)
) -> np.ndarray:
    """These rows and columns of a picture as OpenCV's `resize` with INTER_LINEAR makes it of uint8, equal to the bit.

    In whole numbers, along the rows first (OpenCV's modules/imgproc/src/resize.cpp, HResizeLinear and VResizeLinear).
    """
    before, after, weight_before, weight_after = _neighbours(picture.shape[1], width, columns)
    outside = (before < 0) | (after >= picture.shape[1])
    # Outer columns are taken as they are; outer rows are mixed with themselves, which may lose a level to rounding.
    weight_before[outside], weight_after[outside] = 1 << _WEIGHT_BITS, 0
    mixed = picture.take(before, 1, mode="clip") * weight_before[:, None]
    mixed += picture.take(after, 1, mode="clip") * weight_after[:, None]
    mixed >>= 4

    before, after, weight_before, weight_after = _neighbours(picture.shape[0], height, rows)
    above, below = mixed.take(before, 0, mode="clip"), mixed.take(after, 0, mode="clip")
    above *= weight_before[:, None, None]
    below *= weight_after[:, None, None]
    above >>= 16
    below >>= 16
    return ((above + below + 2) >> 2).astype(np.uint8)


def _neighbours(n_source: int, n_target: int, part: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of some target places: the source places before and after each, which may lie outside, and their weights."""
    centres = ((np.arange(n_target)[part] + 0.5) * (n_source / n_target) - 0.5).astype(np.float32)
    before = np.floor(centres)
    share_after = centres - before
    weights = [np.rint(share * np.float32(1 << _WEIGHT_BITS)) for share in (np.float32(1) - share_after, share_after)]
    places = before.astype(np.int64)
    return places, places + 1, weights[0].astype(np.int32), weights[1].astype(np.int32)


def _resize_pil(picture: np.ndarray, width: int, height: int, name: str) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize((width, height), _PIL_FILTERS[name.removeprefix(SQUASH)]))


def _resized_size(picture: np.ndarray, preprocess: Preprocess) -> tuple[int, int]:
    """Width and height once the short side is `short_side_px`."""
    height, width = picture.shape[:2]
    short = preprocess.short_side_px
    if preprocess.filter.startswith(SQUASH):
        return short, short
    if preprocess.filter == OPENCV:
        scale = short / min(width, height)
        return int(width * scale + 0.5), int(height * scale + 0.5)
    return (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
