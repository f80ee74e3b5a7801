"""An encoder around a network with `video_features` and `text_features`; torch is imported when first needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidx.encoders._clip_text import kept_scale
from vidx.encoders._spec import EncoderSpec
from vidx.encoders._tokenizer import token_ids
from vidx.encoders._weights import located, weights_folder
from vidx.errors import WeightsMisfit
from vidx.pixels import NORMALISATIONS

if TYPE_CHECKING:
    from torch import Tensor

    from vidx.encoders._towers import TextSide

_CLIPS_ON_CPU = 1
_CLIPS_ON_GPU = 16


class NetworkEncoder:
    """See `vidx.encoders.VideoTextEncoder`. The network is made of the spec's files when first used.

    `from_state_dict` is that of its family, `facts` what it is called with. Texts go through NumPy once the text tower
    was seen, so that a search need not import torch.
    """

    def __init__(self, spec: EncoderSpec, from_state_dict: Callable[..., Any], **facts: Any) -> None:
        self.spec = spec
        self._from_state_dict, self._facts = from_state_dict, facts

    def encode_video(self, frames: np.ndarray) -> np.ndarray:
        """See `vidx.encoders.VideoTextEncoder.encode_video`.

        Always as many clips at once, the last ones padded: sums of another shape round otherwise, and a clip's vector
        must not depend on what happens to be encoded beside it.
        """
        return self.in_batches(frames, lambda pixels: self.network.video_features(pixels))

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """See `vidx.encoders.VideoTextEncoder.encode_text`."""
        return _unit(self._text_features(texts))

    def features(self, frames: np.ndarray) -> np.ndarray:
        """What a clip gives before anything is normalised, pooled or compared: uint8 clips to float32 (B, R, d).

        Of CLIP a row for each frame; of networks that mix frames one for the video.
        """
        if self.spec.family == "clip":
            return self._in_batches(frames, lambda pixels: self.network.frame_features(pixels))
        return self._in_batches(frames, lambda pixels: self.network.video_features(pixels)[:, None])

    def in_batches(self, frames: np.ndarray, compute: Callable[[Tensor], Tensor]) -> np.ndarray:
        """Rows of unit norm, float32 (B, d), for clips uint8 (B, T, side, side, 3), from normalised pixels."""
        return _unit(self._in_batches(frames, compute))

    def _in_batches(self, frames: np.ndarray, compute: Callable[[Tensor], Tensor]) -> np.ndarray:
        import torch

        at_once = _CLIPS_ON_CPU if self.device == "cpu" else _CLIPS_ON_GPU
        parts = []
        for at in range(0, len(frames), at_once):
            clips = frames[at : at + at_once]
            padded = np.zeros((at_once, *frames.shape[1:]), np.uint8)
            padded[: len(clips)] = clips
            half = torch.autocast(self.device, torch.bfloat16, enabled=self.precision != "float32")
            with torch.inference_mode(), half:
                parts.append(compute(self.pixels(padded)).float().cpu().numpy()[: len(clips)])
        return np.concatenate(parts)

    def pixels(self, frames: np.ndarray) -> Tensor:
        """uint8 (B, T, side, side, 3) to normalised float32 (B, T, 3, side, side), on the device."""
        import torch

        colours = NORMALISATIONS[self.spec.space.normalise or "unit"]
        mean, std = (torch.tensor(values, device=self.device) for values in (colours.mean, colours.std))
        levels = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device).float() / 255
        return ((levels - mean) / std).permute(0, 1, 4, 2, 3)

    def tokens(self, texts: Sequence[str]) -> np.ndarray:
        """What the text tower takes for texts, int64 (N, L): CLIP's, but of encoders with a tokenizer of their own."""
        return token_ids(texts)

    @cached_property
    def network(self) -> Any:
        """On its device. Raises WeightsError where the files are not those of such a network."""
        from vidx.encoders._checkpoint import read_checkpoint

        loaded = {file.role: read_checkpoint(located(file, self.spec.name)) for file in self.spec.weights}
        network = self._from_state_dict(loaded["video"], text_state=loaded.get("text"), **self._facts)
        self._check_size(network)
        self._keep_text_side(network)
        return network.to(self.device)

    @cached_property
    def device(self) -> str:
        """Where the video tower runs."""
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    @cached_property
    def logit_scale(self) -> float:
        """The authors' scale for tests, else the learned one."""
        if self.spec.test_scale is not None:
            return self.spec.test_scale
        kept = kept_scale(self._text_file)
        return float(self.network.logit_scale.exp()) if kept is None else kept

    @property
    def precision(self) -> str:
        """Of products of matrices; sums of squares and softmax stay in single precision."""
        return "float32" if self.device == "cpu" else "bfloat16"

    def _text_features(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (N, d): by NumPy where the tower is like OpenAI's, else by the network with its own tokens."""
        from vidx.encoders._clip_text import ClipText

        if self._text_file.exists():
            return ClipText.read(self._text_file).encode(self.tokens(texts))
        if (side := self.network.text_side()) is not None:
            tensors = {key: tensor.float().cpu().numpy() for key, tensor in side.tensors.items()}
            return ClipText(tensors, heads=side.heads, activation=side.activation).encode(self.tokens(texts))
        import torch

        from vidx.encoders._open_clip import own_tokens

        with torch.inference_mode():
            tokens = own_tokens(self.spec.name, texts).to(self.device)
            features: np.ndarray = self.network.text_features(tokens).float().cpu().numpy()
        return features

    @property
    def _text_file(self) -> Path:
        """Where the text tower lies by itself, by the digest of the file it came from."""
        return weights_folder() / "text" / f"{self.spec.weights[-1].sha256}.safetensors"

    def _keep_text_side(self, network: Any) -> None:
        from safetensors.torch import save_file

        side: TextSide | None = network.text_side()
        of_tower_alone = self.spec.test_scale is not None  # several networks may have been made from one CLIP
        if side is None or (self._text_file.exists() and (of_tower_alone or kept_scale(self._text_file) is not None)):
            return
        aside = self._text_file.with_suffix(f".{os.getpid()}")
        facts = {"heads": str(side.heads), "activation": side.activation}
        if not of_tower_alone:
            facts["logit_scale"] = repr(float(network.logit_scale.exp()))
        with suppress(OSError):  # it only saves time
            aside.parent.mkdir(parents=True, exist_ok=True)
            save_file({key: tensor.contiguous() for key, tensor in side.tensors.items()}, aside, facts)
            aside.replace(self._text_file)

    def _check_size(self, network: Any) -> None:
        """That the files hold the network that the encoder's name stands for: frames, pictures, patches."""
        space = self.spec.space
        sizes = (
            ("frames", network.frames, space.frames),
            ("pixels a side", network.side_px, space.preprocess.crop_px),
            ("pixels a side of a patch", network.patch_px, self.spec.patch_px),
            ("dimensions", network.dim, space.dim),
        )
        for what, found, wanted in sizes:
            if None not in (found, wanted) and found != wanted:
                raise WeightsMisfit(
                    f"{self.spec.weights[0].path} is for {found} {what}, encoder {self.spec.name} for {wanted}",
                    hint="choose the encoder that fits; `vidx encoders` lists them",
                )


def _unit(features: np.ndarray) -> np.ndarray:
    rows: np.ndarray = features / np.linalg.norm(features, axis=-1, keepdims=True)
    return rows.astype(np.float32)
