"""Training `shapes` from nothing: single frames, then clips with captions, into a folder that is an encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from vidx.encoders._trained import TOKENIZER, write_model
from vidx.schema.files import write_atomically
from vidx.schema.records import Preprocess
from vidx.train.loop import WEIGHTS, Progress, Settings, fit, is_first_process
from vidx.train.shapes.data import FRAMES, SIDE_PX
from vidx.train.shapes.network import SIZE
from vidx.train.shapes.recipe import ClipRecipe, FrameRecipe, Shapes, new_shapes
from vidx.train.shapes.run_report import report_on

CHECK_STEPS = 100  # of clips; frames are quicker
FRAMES_FOLDER = "frames"  # of the first part, below that of the whole


@dataclass(frozen=True)
class Plan:
    """How much of both parts; with `frame_mean` a control that sees each frame alone, else the same."""

    frame_steps: int = 3000
    clip_steps: int = 1600
    frames_at_once: int = 32
    clips_at_once: int = 32
    frame_rate: float = 2e-3
    clip_rate: float = 1e-3
    frame_mean: bool = False
    seed: int = 0


def train_shapes(folder: Path, plan: Plan, tell: Callable[[dict[str, Any]], None]) -> Progress:
    """Train, or go on where a run in `folder` was stopped; then write a report into it.

    Raises InputError as `vidx.train.loop.fit`.
    """
    first, tokenizer = new_shapes(SIZE, plan.seed, frames=1)
    settings = Settings(plan.frame_steps, plan.frame_rate, warmup_steps=60, check_steps=2 * CHECK_STEPS, seed=plan.seed)
    recipe = FrameRecipe(first, SIZE, plan.seed, plan.frames_at_once)
    fit(recipe, settings, folder / FRAMES_FOLDER, lambda line: tell({"part": "frames", **line}))

    module, _ = new_shapes(SIZE, plan.seed, frames=1 if plan.frame_mean else FRAMES)
    _begin_with(module, folder / FRAMES_FOLDER / WEIGHTS)
    write_atomically(folder / TOKENIZER, tokenizer.to_str().encode())
    write_model(
        folder,
        family="shapes",
        frames=FRAMES,
        dim=SIZE.dim,
        normalise="half",
        preprocess=asdict(Preprocess(SIDE_PX, SIDE_PX)),
        pooling="mean of frames" if plan.frame_mean else "of the network",
        trained_on="rendered clips of moving shapes",
    )
    settings = Settings(plan.clip_steps, plan.clip_rate, warmup_steps=60, check_steps=CHECK_STEPS, seed=plan.seed)
    clips = ClipRecipe(module, SIZE, tokenizer, plan.seed, plan.clips_at_once)
    progress = fit(clips, settings, folder, lambda line: tell({"part": "clips", **line}))
    if is_first_process():
        report_on(folder, plan.seed)
    return progress


def _begin_with(module: Shapes, weights: Path) -> None:
    """Take what the first part learned, all but the places of frames in a clip, of which it had one."""
    own = module.state_dict()
    learned = {name: tensor for name, tensor in load_file(weights).items() if own[name].shape == tensor.shape}
    with torch.no_grad():
        module.load_state_dict({**own, **learned})
