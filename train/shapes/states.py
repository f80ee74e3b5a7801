"""What single frames show, as numbers to learn: of each colour the thing that has it, and of each patch its thing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vidx.train.shapes.scenes import COLOURS, SHAPES, Scene

_PLACE = 3  # x, y, radius
PER_COLOUR = 1 + _PLACE + len(SHAPES)  # shown, place, shapes
PER_PATCH = 1 + len(COLOURS) + len(SHAPES) + _PLACE  # none, colours, shapes, place
_VISIBLE = 0.5


class FrameStates(NamedTuple):
    """For N frames, whose places are from -1 to 1 and radii in fifths of a side."""

    shown: Tensor  # float32 (N, colours), 0 or 1
    places: Tensor  # float32 (N, colours, 3): x, y, radius
    shapes: Tensor  # int64 (N, colours)
    patch_colours: Tensor  # int64 (N, P), 0 for none
    patch_shapes: Tensor  # int64 (N, P)
    patch_places: Tensor  # float32 (N, P, 3), x and y from the middle of the patch in fifths of a side


def frame_states(scenes: Sequence[Scene], cells: int) -> FrameStates:
    """Of all frames of all scenes in turn; `cells` patches a side."""
    n_frames = len(scenes[0].things[0].x)
    shown = np.zeros((len(scenes), n_frames, len(COLOURS)), np.float32)
    places = np.zeros((*shown.shape, _PLACE), np.float32)
    shapes = np.zeros(shown.shape, np.int64)
    patch = [np.zeros((len(scenes), n_frames, cells * cells), np.int64) for _ in range(2)]
    patch_places = np.zeros((*patch[0].shape, _PLACE), np.float32)
    middles = (np.arange(cells) + 0.5) / cells
    rows, columns = (grid.ravel() for grid in np.meshgrid(middles, middles, indexing="ij"))
    for at, scene in enumerate(scenes):
        for thing in scene.things:
            colour, shape = COLOURS.index(thing.colour), SHAPES.index(thing.shape)
            size, visible = thing.radius * 5, thing.opacity > _VISIBLE
            shown[at, :, colour] = visible
            places[at, :, colour] = np.column_stack([2 * thing.x - 1, 2 * thing.y - 1, size])
            shapes[at, :, colour] = shape
            dx, dy = thing.x[:, None] - columns, thing.y[:, None] - rows
            covers = (np.hypot(dx, dy) < thing.radius[:, None] + 0.3 / cells) & visible[:, None]
            patch[0][at][covers], patch[1][at][covers] = 1 + colour, shape
            spread = np.broadcast_to(size[:, None], dx.shape)
            patch_places[at][covers] = np.stack([5 * dx, 5 * dy, spread], axis=2)[covers]
    values = (shown, places, shapes, *patch, patch_places)
    return FrameStates(*(torch.from_numpy(value).flatten(0, 1) for value in values))


def state_loss(of_frames: Tensor, of_patches: Tensor, states: FrameStates) -> dict[str, Tensor]:
    """Mean losses of (N, colours * PER_COLOUR) and (N, P, PER_PATCH)."""
    guessed = of_frames.unflatten(1, (len(COLOURS), PER_COLOUR))
    is_shown, covered = states.shown > 0, states.patch_colours > 0
    colours, shapes, places = of_patches.split([1 + len(COLOURS), len(SHAPES), _PLACE], dim=2)
    return {
        "shown": F.binary_cross_entropy_with_logits(guessed[..., 0], states.shown),
        "places": F.smooth_l1_loss(guessed[..., 1 : 1 + _PLACE][is_shown], states.places[is_shown], beta=0.1),
        "shapes": F.cross_entropy(guessed[..., 1 + _PLACE :][is_shown], states.shapes[is_shown]),
        "patch_colours": F.cross_entropy(colours.flatten(0, 1), states.patch_colours.flatten()),
        "patch_shapes": F.cross_entropy(shapes[covered], states.patch_shapes[covered]),
        "patch_places": F.smooth_l1_loss(places[covered], states.patch_places[covered], beta=0.1),
    }
