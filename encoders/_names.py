"""Names of tensors: those of OpenAI's CLIP and of X-CLIP's authors, and those of transformers for the same.

transformers splits the joint projection of attention into three and stores the two output projections transposed.
"""

from __future__ import annotations

import re

import torch

from vidx.encoders._checkpoint import State

# transformers' name of a place, and the original's; what follows is the same, or a block's.
_PLACES = (
    ("vision_model.embeddings.class_embedding", "visual.class_embedding"),
    ("vision_model.embeddings.patch_embedding.weight", "visual.conv1.weight"),
    ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
    ("vision_model.pre_layernorm.", "visual.ln_pre."),
    ("vision_model.pre_layrnorm.", "visual.ln_pre."),  # as its CLIP spells it
    ("vision_model.post_layernorm.", "visual.ln_post."),
    ("vision_model.encoder.layers.", "visual.transformer.resblocks."),
    ("text_model.embeddings.token_embedding.weight", "token_embedding.weight"),
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.final_layer_norm.", "ln_final."),
    ("text_model.encoder.layers.", "transformer.resblocks."),
    ("mit.position_embedding", "mit.positional_embedding"),
    ("mit.encoder.layers.", "mit.resblocks."),
    ("visual_projection.weight", "visual.proj"),
    ("text_projection.weight", "text_projection"),
    ("prompts_visual_projection", "prompts_visual_proj"),
    ("prompts_visual_layernorm.", "prompts_visual_ln."),
    ("prompts_generator.layernorm.", "prompts_generator.norm."),
)
_IN_BLOCKS = (
    (".self_attn.", ".attn."),
    (".layer_norm1.", ".ln_1."),
    (".layer_norm2.", ".ln_2."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
)
_TRANSPOSED = ("visual_projection.weight", "text_projection.weight")
_BLOCK = re.compile(r"(^|\.)(layers|resblocks)\.\d+\.")
_SPLIT = re.compile(r"(.*attn\.)([qkv])_proj\.(weight|bias)")
_JOINT = re.compile(r"(.*attn\.)in_proj_(weight|bias)")


def is_transformers(state: State) -> bool:
    """Whether names are those of transformers."""
    return any(key.startswith(("vision_model.", "text_model.")) for key in state)


def to_transformers(state: State) -> State:
    """Tensors under transformers' names, from the original's."""
    renamed: State = {}
    for key, tensor in state.items():
        new = _renamed(key, 1, 0)
        if joint := _JOINT.fullmatch(new):
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"{joint[1]}{letter}_proj.{joint[2]}"] = part
        else:
            renamed[new] = tensor.T.contiguous() if new in _TRANSPOSED else tensor
    return renamed


def from_transformers(state: State) -> State:
    """Tensors under the original's names, from transformers'."""
    renamed: State = {}
    for key, tensor in state.items():
        if key.endswith("position_ids"):  # older files have these counts
            continue
        new = _renamed(key, 0, 1)
        if (split := _SPLIT.fullmatch(new)) and _BLOCK.search(key):  # not the prompts' cross attention
            parts = [state.get(key.replace(f".{split[2]}_proj.", f".{letter}_proj.")) for letter in "qkv"]
            if split[2] == "q" and all(part is not None for part in parts):
                renamed[f"{split[1]}in_proj_{split[3]}"] = torch.cat([part for part in parts if part is not None])
        else:
            renamed[new] = tensor.T.contiguous() if key in _TRANSPOSED else tensor
    return renamed


def _renamed(key: str, old: int, new: int) -> str:
    for place in _PLACES:
        if key.startswith(place[old]):
            key = place[new] + key[len(place[old]) :]
            break
    if _BLOCK.search(key):
        for part in _IN_BLOCKS:
            key = key.replace(part[old], part[new])
    return key
