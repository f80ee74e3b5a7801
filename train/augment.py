"""How a network looks at a video: which frames, of which part of the picture, in training at random.

For training, stretches longer than a clip are decoded, whole pictures squeezed into a square; a clip, its size, the
crop and the mirror image are drawn from that, and the picture gets its shape back as it is brought to size. So what is
random costs no decoding of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from vidx.indexer.frames import Look, Looked
from vidx.indexer.sampling import Sampling
from vidx.schema.records import Preprocess, Video

_STRIDE = 4  # of `strided` clips, in frames
_STRETCHES = 3  # of a video, evenly over it
_LONGER = 1.5  # than a clip
_SCALES = 256 / 224, 320 / 224  # of the short side, to the crop
_SQUEEZED = "squash-bilinear"


@dataclass(frozen=True)
class View:
    """A clip of `frames` pictures `spacing_s` apart.

    Looked at for a figure is the middle clip of a video, brought to size by `filter` (see `vidx.pixels`). In training
    it is a clip from a random start; with `crops` with a short side of 256 to 320 for a crop of 224, at a random place,
    and with `mirrors` every second one the other way round.
    """

    frames: int
    spacing_s: float
    side_px: int
    filter: str
    crops: bool
    mirrors: bool

    @property
    def look(self) -> Look:
        """At the middle of a video."""
        return Look(self._sampling(self.frames, 1), Preprocess(self.side_px, self.side_px, self.filter))

    @property
    def training_look(self) -> Look:
        """At the stretches that clips are drawn from."""
        sampling = self._sampling(int(self.frames * _LONGER), _STRETCHES)
        if not self.crops:
            return Look(sampling, self.look.preprocess)
        side_px = round(self.side_px * _SCALES[0])
        return Look(sampling, Preprocess(side_px, side_px, _SQUEEZED))

    def _sampling(self, frames: int, clips: int) -> Sampling:
        return Sampling("strided", frames, clips, frames_per_s=_STRIDE / self.spacing_s)

    def drawn(self, looked: Looked, random: np.random.Generator) -> np.ndarray:
        """A clip, uint8 (frames, side_px, side_px, 3), of a video that was looked at with `training_look`."""
        assert looked.facts is not None
        clip = random_clip(looked.views[0], looked.indices[0], self.frames, random)
        if self.crops:
            clip = random_crop(clip, shape_of(looked.facts), self.side_px, random)
        if self.mirrors and random.random() < 0.5:
            clip = clip[:, :, ::-1]
        return np.ascontiguousarray(clip)


def random_clip(stretches: np.ndarray, indices: np.ndarray, frames: int, random: np.random.Generator) -> np.ndarray:
    """So many frames in a row of stretches (C, F, ...), none of which goes over the end of the video.

    `indices` int (C, F) fall where a stretch begins the video again. A video shorter than a clip is taken from its
    start, and begun again.
    """
    last = indices.shape[1] - frames
    starts = [
        (stretch, start)
        for stretch in range(len(indices))
        for start in range(last + 1)
        if (np.diff(indices[stretch, start : start + frames]) > 0).all()
    ]
    stretch, start = starts[random.integers(len(starts))] if starts else (0, 0)
    chosen: np.ndarray = stretches[stretch, start : start + frames]
    return chosen


def random_crop(squeezed: np.ndarray, shape: float, side_px: int, random: np.random.Generator) -> np.ndarray:
    """A square part of pictures uint8 (T, S, S, 3) that were `shape` times as wide as high: (T, side_px, side_px, 3).

    It is a crop of 224 of pictures whose short side is 256 to 320, for other sides in proportion.
    """
    short = random.uniform(*_SCALES)
    height, width = short * max(1, 1 / shape), short * max(1, shape)  # of the picture, in crops
    whole = squeezed.shape[1]
    rows, columns = (max(1, round(whole / side)) for side in (height, width))
    top, left = (int(random.integers(whole - n + 1)) for n in (rows, columns))
    part = torch.from_numpy(squeezed[:, top : top + rows, left : left + columns]).permute(0, 3, 1, 2)
    sized = F.interpolate(part, (side_px, side_px), mode="bilinear", antialias=True)
    return sized.permute(0, 2, 3, 1).numpy()


def shape_of(facts: Video) -> float:
    """How many times as wide as high a video is shown."""
    shape = facts.width * facts.sar_num / (facts.height * facts.sar_den)
    return 1 / shape if facts.rotation % 180 else shape
