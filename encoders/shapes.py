"""Small X-CLIPs that were trained on rendered clips of moving shapes (`vidx train shapes`); one comes with vidx.

It knows four shapes, eight colours and twelve motions, and tells a motion from its reverse: ground truth for tests of
everything above encoders, not a search engine for footage. Ni et al. 2022 (arXiv:2208.02816).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidx.encoders import EncoderSpec, WeightsFile, xclip
from vidx.encoders._trained import TOKENIZER, WEIGHTS
from vidx.encoders._weights import checked, located
from vidx.encoders._xclip_encoder import XCLIPEncoder
from vidx.errors import WeightsDamaged
from vidx.schema.records import Preprocess
from vidx.schema.spaces import Space

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from vidx.encoders._xclip_network import XCLIPNetwork

SHIPPED = Path(__file__).parent / "_data" / "shapes"  # written by `vidx.train.shapes.pack`
_SIDE_PX, _PATCH_PX = 64, 8
_WEIGHTS_SHA256 = "c0e62246afc2bd6bb023f8ec86da8347aa676f0bcafa3f1e6fdc2a2244a0a09a"
_TOKENIZER_SHA256 = "6dc1ea245772ec4c57a2b50c56200ed79b9168d65993525699c51c53c6eb9bc9"

NAMES = {  # others that were trained are named by their folder
    "shapes": EncoderSpec(
        name="shapes",
        family="shapes",
        description=f"rendered moving shapes, to see that time matters; 8 frames of {_SIDE_PX} px; comes with vidx",
        licence="Apache-2.0",
        space=Space(
            encoder="shapes",
            weights={"video": _WEIGHTS_SHA256, "tokenizer": _TOKENIZER_SHA256},
            preprocess=Preprocess(_SIDE_PX, _SIDE_PX),
            frames=8,
            pooling="of the network",
            dim=128,
            normalise="half",
        ),
        weights=(WeightsFile("install vidx again", _WEIGHTS_SHA256, 3_614_730, SHIPPED / WEIGHTS, role="video"),),
        patch_px=_PATCH_PX,
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

        beside = located(self.spec.weights[0], self.spec.name).with_name(TOKENIZER)
        digest = self.spec.space.weights.get("tokenizer")
        path = checked(WeightsFile("train it again", digest, 0, beside), self.spec.name)
        try:
            return Tokenizer.from_file(str(path))
        except Exception as error:  # all that the library raises
            raise WeightsDamaged(f"{path} can't be read as a tokenizer", hint="train the model again") from error
