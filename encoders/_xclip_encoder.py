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
        return self.cosines(self.features(frames), texts)

    def features(self, frames: np.ndarray) -> np.ndarray:
        """As `NetworkEncoder.features`: the video's own feature, then its patch context, float32 (B, 1 + P, d)."""

        def both(pixels: Tensor) -> Tensor:
            import torch

            of_frames, context = self.network.towers(pixels)
            return torch.cat([self.network.integrated(of_frames)[:, None], context], dim=1)

        return self._in_batches(frames, both)

    def cosines(self, features: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """What `features` returned, float32 (B, 1 + P, d), with the texts as each clip sees them: float32 (B, N)."""
        import torch

        from vidx.encoders._towers import unit

        network = self.network
        with torch.inference_mode():
            plain = network.text_features(torch.from_numpy(self.tokens(texts)).to(self.device))
            parts = []
            for clip in torch.tensor(features, device=self.device)[:, None]:  # alone, as sums of other shapes differ
                adjusted = network.adjusted(plain, clip[:, 1:])
                parts.append(torch.einsum("bd,bnd->bn", unit(clip[:, 0]), unit(adjusted)).cpu().numpy())
        return np.concatenate(parts)
