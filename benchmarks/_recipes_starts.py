"""What `benchmarks/recipes.py` trains on and begins with: rendered clips, small random networks as released files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vidx.encoders import clip
from vidx.encoders._trained import WEIGHTS, write_model
from vidx.plugins import load
from vidx.schema.records import Preprocess
from vidx.train.clip_text import begun_with_clip
from vidx.train.shapes.drawing import draw_look, pictures
from vidx.train.shapes.scenes import Content, draw_scene

MOTIONS = ("left", "right", "up", "down", "grow", "shrink")  # three pairs: played backwards, one is the other
_RATE, _CLIP_PX = 25, 96
_SIDE_PX = 48  # of what networks see, but for MoViNet
_PREPARED = Preprocess(_SIDE_PX + 6, _SIDE_PX)


def render(root: Path, clips: int, seconds: int) -> Path:
    """H.264 files below `root`, a folder for each of MOTIONS with so many clips of a white circle; the same each time.

    What is there already is taken to be so.
    """
    times = (np.arange(_RATE * seconds) + 0.5) / (_RATE * seconds)
    for label, motion in enumerate(MOTIONS):
        (root / motion).mkdir(parents=True, exist_ok=True)
        for number in range(clips):
            path = root / motion / f"{number:03}.mp4"
            if path.exists():
                continue
            random = np.random.default_rng([label, number])
            content = Content("circle", "white", motion)
            scene = draw_scene(random, (content,), times)
            _write(path, pictures(random, scene, draw_look(random, scene, _CLIP_PX)))
    return root


def _write(path: Path, frames: np.ndarray) -> None:
    """uint8 (T, side, side, 3) as H.264."""
    partial = path.with_suffix(".part")
    with av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=_RATE)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    partial.rename(path)


# Where a frame stands in time. The authors begin with 0.02, far below features of a random tower: nothing is learned of
# time for long then.
_PLACES = {"fusion_model.frame_position_embeddings.weight", "mit.positional_embedding"}
_PLACES_GAIN = 50
# Of a random text tower: else texts that differ in a word are all but one point, where a trained one holds them apart.
_TOKENS_GAIN, _TEXT_GAIN = 5, 2


def text_folder(folder: Path, family: str) -> Path:
    """An encoder of 8 frames of 48 px: a CLIP in OpenAI's names, towers 64 wide, and the family's own parts.

    A folder as of `vidx train`, since the sizes of released ones, which names stand for, take too long on a CPU.
    """
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    torch.manual_seed(0)
    vision = CLIPVisionCfg(layers=2, width=64, head_width=64, patch_size=8, image_size=_SIDE_PX)
    network = CLIP(64, vision, CLIPTextCfg(width=64, heads=1, layers=3), quick_gelu=True)
    network.logit_scale.data.fill_(np.log(100))  # as OpenAI's
    network.token_embedding.weight.data *= _TOKENS_GAIN
    for block in network.transformer.resblocks:
        for part in (
            block.attn.in_proj_weight,
            block.attn.out_proj.weight,
            block.mlp.c_fc.weight,
            block.mlp.c_proj.weight,
        ):
            part.data *= _TEXT_GAIN
    like = next(iter(load("encoders", family).NAMES.values()))
    state = begun_with_clip(clip.from_state_dict(network.state_dict()), family, like.space.frames, seed=0)
    for name in _PLACES & state.keys():
        state[name] *= _PLACES_GAIN
    folder = folder / family
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / WEIGHTS)
    write_model(
        folder,
        **{"family": family, "dim": 64, "frames": like.space.frames, "trained_on": "nothing"},
        **{"pooling": like.space.pooling, "normalise": like.space.normalise, "preprocess": asdict(_PREPARED)},
        **{"templates": like.templates, "test_scale": like.test_scale},
    )
    return folder


def videomae_folder(folder: Path) -> Path:
    """A VideoMAE of pre-training as Hugging Face lays it out: 16 frames of 48 px, three layers 64 wide."""
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    torch.manual_seed(0)
    config = VideoMAEConfig.from_dict(
        {
            **{"image_size": _SIDE_PX, "patch_size": 12, "hidden_size": 64, "intermediate_size": 128},
            **{"num_hidden_layers": 3, "num_attention_heads": 2, "initializer_range": 0.1, "use_mean_pooling": True},
            **{"decoder_hidden_size": 48, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 3},
        }
    )
    network = VideoMAEForPreTraining(config)
    folder = folder / "videomae"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    return folder


# Channels in, expanded and out of each block; its kernel in time and in space. All but the last halve the picture.
_BLOCKS = {
    "b0_l0": (4, 8, 12, 1, 5),
    "b1_l0": (12, 24, 24, 3, 3),
    "b2_l0": (24, 48, 40, 3, 3),
    "b2_l1": (40, 80, 40, 5, 3),
}


def movinet_file(folder: Path) -> Path:
    """A MoViNet of the base form, of four blocks."""
    torch.manual_seed(0)
    state: dict[str, Tensor] = {}

    def layer(name: str, n_out: int, n_in: int, *kernel: int, bias: bool = False) -> None:
        weight = torch.empty(n_out, n_in, *(kernel or (1, 1, 1)))
        state[f"{name}.conv_1.conv3d.weight"] = nn.init.kaiming_normal_(weight)
        if bias:
            state[f"{name}.conv_1.conv3d.bias"] = torch.zeros(n_out)
        else:
            norm = nn.BatchNorm3d(n_out).state_dict()
            state.update({f"{name}.conv_1.norm.{key}": tensor for key, tensor in norm.items()})

    layer("conv1", 4, 3, 1, 3, 3)
    for block, (n_in, width, n_out, n_frames, side) in _BLOCKS.items():
        layer(f"blocks.{block}.expand", width, n_in)
        layer(f"blocks.{block}.deep", width, 1, n_frames, side, side)
        layer(f"blocks.{block}.se.fc1", 8, width, bias=True)
        layer(f"blocks.{block}.se.fc2", width, 8, bias=True)
        layer(f"blocks.{block}.project", n_out, width)
        if n_in != n_out:
            layer(f"blocks.{block}.res.1", n_out, n_in)
        state[f"blocks.{block}.alpha"] = torch.tensor(1.0)
    layer("conv7", 128, 40)
    layer("classifier.0", 128, 128, bias=True)
    layer("classifier.3", 600, 128, bias=True)
    return _saved(state, folder / "movinet.pt")


def _saved(state: dict[str, Tensor], path: Path) -> Path:
    torch.save(state, path)
    return path


START_OF: dict[str, Callable[[Path], Path]] = {
    **{family: partial(text_folder, family=family) for family in ("text4vis", "actionclip", "xclip")},
    "videomae": videomae_folder,
    "movinet": movinet_file,
}
