"""X-CLIP's encoder: vectors as every encoder's, and scores as the paper has them, with texts adjusted to each video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vidx.encoders._network_encoder import NetworkEncoder

if TYPE_CHECKING:
    from torch import Tensor


class XCLIPEncoder(NetworkEncoder):
    """See `vidx.encoders.VideoTextEncoder`; `exact_scores` is what a search index can't hold."""

    def exact_scores(self, frames: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """Cosines of clips with the texts as each clip sees them: uint8 (B, T, side, side, 3) to float32 (B, N).

        Ni et al. 2022, section 3.3. The network's own scores are these times its learned scale.
        """
        import torch

        from vidx.encoders._tokenizer import token_ids
        from vidx.encoders._towers import unit

        network = self.network
        with torch.inference_mode():
            plain = network.text_features(torch.from_numpy(token_ids(texts)).to(self.device))

        def with_texts(pixels: Tensor) -> Tensor:
            """Each clip's own feature in the first row, its texts in the others."""
            of_frames, context = network.towers(pixels)
            videos, adjusted = network.integrated(of_frames), network.adjusted(plain, context)
            return torch.cat([unit(videos)[:, None], unit(adjusted)], dim=1)

        rows = self.in_batches(frames, with_texts)
        scores: np.ndarray = np.einsum("bd,bnd->bn", rows[:, 0], rows[:, 1:])
        return scores
