"""CLIP's text tower in NumPy, so that a search need not import torch, which costs more than the query.

Architecture: Radford et al. 2021 (arXiv:2103.00020), section 2.4; openai/CLIP, clip/model.py: pre-norm blocks under a
causal mask, a last LayerNorm, the features of the end token, a projection.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from vidx.encoders._sentence import erf
from vidx.errors import WeightsDamaged, WeightsMisfit

_EPS = np.float32(1e-5)
_AT_ONCE = 64  # texts; their largest arrays take 40 MB at 77 tokens and width 512
_TABLE = "token_embedding.weight"
_OUTSIDE = (_TABLE, "positional_embedding", "ln_final.weight", "ln_final.bias", "text_projection")
_IN_A_BLOCK = (
    *(f"{part}.{kind}" for part in ("ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj") for kind in ("weight", "bias")),
    *("attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight", "attn.out_proj.bias"),
)
_TYPES = {"F32": np.float32, "F16": np.float16}


def _quick_gelu(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # far below zero, where the result is zero
        result: np.ndarray = x / (1 + np.exp(np.float32(-1.702) * x))
    return result


def _gelu(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.float32(0.5) * x * (1 + erf(x * np.float32(0.5**0.5)))
    return result


_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"quick_gelu": _quick_gelu, "gelu": _gelu}


class ClipText:
    """Token ids to text features. `tensors` are under OpenAI's names, in single or half precision; others are ignored.

    Raises WeightsMisfit where tensors are missing, or for an activation other than `quick_gelu` and `gelu`.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray], *, heads: int, activation: str = "quick_gelu") -> None:
        blocks = {name.split(".")[2] for name in tensors if name.startswith("transformer.resblocks.")}
        self._blocks = [f"transformer.resblocks.{number}" for number in range(len(blocks))]
        needed = [*_OUTSIDE, *(f"{block}.{name}" for block in self._blocks for name in _IN_A_BLOCK)]
        if missing := [name for name in needed if name not in tensors]:
            raise WeightsMisfit(f"this is no text tower of CLIP, or it was cut: it lacks {missing[0]}")
        if activation not in _ACTIVATIONS:
            raise WeightsMisfit(f"there is no activation {activation!r}", hint=f"known: {', '.join(_ACTIVATIONS)}")
        self._table = tensors[_TABLE]  # most of the tower, of which a query needs a few rows
        self._tensors = {name: tensors[name].astype(np.float32, copy=False) for name in needed if name != _TABLE}
        self._heads, self._activate = heads, _ACTIVATIONS[activation]

    @classmethod
    def read(cls, path: Path) -> ClipText:
        """A tower from a safetensors file whose metadata name `heads` and `activation`. Tensors stay in the file.

        Raises WeightsDamaged for what is no such file, WeightsMisfit for one of something else.
        """
        try:
            with safe_open(path, "numpy") as file:  # which checks that the file is whole
                facts = file.metadata() or {}
            tensors = dict(_mapped(path))
            heads, activation = int(facts["heads"]), facts["activation"]
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise WeightsDamaged(f"{path} can't be read as a text tower ({error})", hint="remove it") from error
        return cls(tensors, heads=heads, activation=activation)

    def encode(self, token_ids: np.ndarray) -> np.ndarray:
        """int64 (N, L) to float32 (N, d), not of unit norm.

        A text ends at its largest id, the end token; what follows is padding and does not count. Texts of equal length
        go through together.
        """
        lengths = token_ids.argmax(axis=1) + 1
        by_length: dict[int, list[int]] = defaultdict(list)
        for number, length in enumerate(lengths.tolist()):
            by_length[length].append(number)
        features = np.empty((len(token_ids), self._tensors["text_projection"].shape[1]), np.float32)
        for length, numbers in by_length.items():
            for at in range(0, len(numbers), _AT_ONCE):
                together = numbers[at : at + _AT_ONCE]
                features[together] = self._encode_equal(token_ids[together, :length])
        return features

    def _encode_equal(self, token_ids: np.ndarray) -> np.ndarray:
        x = self._table[token_ids].astype(np.float32) + self._tensors["positional_embedding"][: token_ids.shape[1]]
        for block in self._blocks:
            x = x + self._attention(self._norm(x, f"{block}.ln_1"), f"{block}.attn")
            inner = self._activate(self._linear(self._norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc."))
            x = x + self._linear(inner, f"{block}.mlp.c_proj.")
        features: np.ndarray = self._norm(x[:, -1], "ln_final") @ self._tensors["text_projection"]
        return features

    def _attention(self, x: np.ndarray, name: str) -> np.ndarray:
        batch, length, width = x.shape
        qkv = self._linear(x, f"{name}.in_proj_").reshape(batch, length, 3, self._heads, -1)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)
        future = np.triu(np.full((length, length), -np.inf, np.float32), 1)
        scores = q @ k.transpose(0, 1, 3, 2) * np.float32(q.shape[-1] ** -0.5) + future
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ v
        return self._linear(mixed.transpose(0, 2, 1, 3).reshape(batch, length, width), f"{name}.out_proj.")

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        flat = x.reshape(-1, x.shape[-1]) @ self._tensors[f"{name}weight"].T  # one product is faster than many
        result: np.ndarray = (flat + self._tensors[f"{name}bias"]).reshape(*x.shape[:-1], -1)
        return result

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + _EPS)
        result: np.ndarray = centred / scale * self._tensors[f"{name}.weight"] + self._tensors[f"{name}.bias"]
        return result


def kept_scale(path: Path) -> float | None:
    """The learned scale of logits that was written beside a text tower, None where there is none."""
    try:
        with safe_open(path, "numpy") as file:
            return float((file.metadata() or {})["logit_scale"])
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def _mapped(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors of a safetensors file that are of known types, by name, each a view into the mapped file."""
    with open(path, "rb") as file:
        n_header = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(n_header))
    data = np.memmap(path, np.uint8, "r", offset=8 + n_header)
    for name, facts in header.items():
        if dtype := _TYPES.get(facts.get("dtype")):  # the metadata have none
            start, end = facts["data_offsets"]
            yield name, np.asarray(data[start:end].view(dtype).reshape(facts["shape"]))
