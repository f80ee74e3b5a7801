"""Frames of whole videos to train on: one from each of so many equal segments, drawn anew in every epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from vidx.indexer.frames import Look, Looked
from vidx.indexer.sampling import Sampling, random_in_segments
from vidx.schema.records import Preprocess
from vidx.train.augment import View, random_crop, shape_of

_CANDIDATES = 4  # of a segment, evenly over it


@dataclass(frozen=True)
class SegmentView(View):
    """A clip with a frame of each segment of a video; however far apart they are.

    Looked at for a figure are the frames of `figures`. In training it is a random frame of each segment (Wang et al.
    2016, arXiv:1608.00859; Text4Vis and ActionCLIP, datasets). So that not all of a video need be decoded in every
    epoch, the same few frames evenly over each segment are decoded once, the first of a segment among them, and it is
    drawn from these; of videos of no more frames than those, each frame can be drawn. Crops and mirror images are as
    of `View`.
    """

    figures: Look

    @property
    def look(self) -> Look:
        """At the frames of a figure."""
        return self.figures

    @property
    def training_look(self) -> Look:
        """At the frames to draw from."""
        return replace(super().training_look, sampling=Sampling("starts", _CANDIDATES * self.frames))

    def drawn(self, looked: Looked, random: np.random.Generator) -> np.ndarray:
        """A clip, uint8 (frames, side_px, side_px, 3), of a video that was looked at with `training_look`."""
        assert looked.facts is not None
        places = drawn_frames(looked.indices[0][0], looked.facts.n_frames, self.frames, random)
        clip = random_crop(looked.views[0][0][places], shape_of(looked.facts), self.side_px, random)
        if self.mirrors and random.random() < 0.5:
            clip = clip[:, :, ::-1]
        return np.ascontiguousarray(clip)


def segment_view(figures: Look, mirrors: bool) -> SegmentView:
    """For an encoder that is measured with `figures`."""
    preprocess = figures.preprocess
    return SegmentView(
        frames=figures.sampling.frames,
        spacing_s=math.inf,
        side_px=preprocess.crop_px,
        filter=preprocess.filter,
        crops=True,
        mirrors=mirrors,
        figures=figures,
    )


def prepared_as(view: SegmentView, preprocess: Preprocess) -> SegmentView:
    """The same frames, brought to size another way for figures."""
    return replace(view, figures=replace(view.figures, preprocess=preprocess))


def drawn_frames(candidates: np.ndarray, n: int, frames: int, random: np.random.Generator) -> np.ndarray:
    """Places in `candidates` of a random frame of each of T segments, int64 (T,), in the order of the video.

    Segment k of a video of n frames is [floor(k n / T), floor((k + 1) n / T)). `candidates` int64 (C,), ascending, are
    frames of it that hold the first of each segment. For no more frames than asked for: all, and random ones again.
    """
    distinct, places = np.unique(candidates, return_index=True)
    if n <= frames:
        return places[random_in_segments(n, frames, random)]
    bounds = np.searchsorted(distinct, np.arange(frames + 1) * n // frames)
    return places[random.integers(bounds[:-1], bounds[1:])]
