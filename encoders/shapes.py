"""`shapes`: a small X-CLIP that this project trained on rendered clips of moving shapes (`vidx train shapes`).

It knows four shapes, eight colours and fourteen motions, and tells a motion from its reverse: ground truth for tests of
everything above encoders, not a search engine for footage. Ni et al. 2022 (arXiv:2208.02816).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from vidx.encoders import EncoderSpec, WeightsFile, xclip
from vidx.encoders._trained import PREFIX, TOKENIZER
from vidx.encoders._weights import checked, in_package, located
from vidx.encoders._xclip_encoder import XCLIPEncoder
from vidx.errors import WeightsDamaged
from vidx.schema.records import Preprocess
from vidx.schema.spaces import Space

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from vidx.encoders._xclip_network import XCLIPNetwork

_REINSTALL = "it comes with vidx: install vidx again"
_TOKENIZER = in_package(
    "vidx.encoders",
    "_data/shapes-tokenizer.json",
    sha256="",
    size_bytes=0,
    source=_REINSTALL,
)
_WEIGHTS = in_package("vidx.encoders", "_data/shapes.safetensors", sha256="", size_bytes=0, source=_REINSTALL)

NAMES = {
    "shapes": EncoderSpec(
        name="shapes",
        family="shapes",
        description="a small X-CLIP for rendered clips of moving shapes; tells left from right, not for footage",
        licence="Apache-2.0",
        space=Space(
            encoder="shapes",
            weights={"tokenizer": str(_TOKENIZER.sha256)},
            preprocess=Preprocess(short_side_px=64, crop_px=64),
            frames=8,
            pooling="of the network",
            dim=128,
            normalise="half",
        ),
        weights=(replace(_WEIGHTS, role="video"),),
        patch_px=8,
    )
}


def build(spec: EncoderSpec) -> ShapesEncoder:
    """The encoder; its files are read when it is first used."""
    return ShapesEncoder(spec)


def from_state_dict(state: Mapping[str, Any], *, text_state: None = None, **facts: Any) -> XCLIPNetwork:
    """As X-CLIP's; a network of one frame sees a clip's frames one by one and takes the mean of their features."""
    from vidx.encoders._xclip_network import FrameMeanNetwork

    network = xclip.from_state_dict(state, **facts)
    return FrameMeanNetwork(network.model) if network.frames == 1 else network


class ShapesEncoder(XCLIPEncoder):
    """X-CLIP with a vocabulary of its own. Texts are not adjusted to clips: its network has no layers for that."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__(spec, from_state_dict)

    def tokens(self, texts: Sequence[str]) -> np.ndarray:
        """See `NetworkEncoder.tokens`."""
        from vidx.encoders._small_tokens import small_token_ids

        return small_token_ids(self._tokenizer, texts)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        path = checked(self._vocabulary(), self.spec.name)
        try:
            return Tokenizer.from_file(str(path))
        except Exception as error:  # all that the library raises
            raise WeightsDamaged(f"{path} can't be read as a tokenizer", hint="train the model again") from error

    def _vocabulary(self) -> WeightsFile:
        """The built-in one, or that beside trained weights."""
        if not self.spec.name.startswith(PREFIX):
            return _TOKENIZER
        beside = located(self.spec.weights[0], self.spec.name).with_name(TOKENIZER)
        return WeightsFile("train it again", self.spec.space.weights.get("tokenizer"), 0, beside)
