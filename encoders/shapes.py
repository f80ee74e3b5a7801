"""Small X-CLIPs that were trained on rendered clips of moving shapes (`vidx train shapes`).

It knows four shapes, eight colours and fourteen motions, and tells a motion from its reverse: ground truth for tests of
everything above encoders, not a search engine for footage. Ni et al. 2022 (arXiv:2208.02816).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from vidx.encoders import EncoderSpec, WeightsFile, xclip
from vidx.encoders._trained import TOKENIZER
from vidx.encoders._weights import checked, located
from vidx.encoders._xclip_encoder import XCLIPEncoder
from vidx.errors import WeightsDamaged

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from vidx.encoders._xclip_network import XCLIPNetwork

NAMES: dict[str, EncoderSpec] = {}  # those that were trained are named by their folder


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
