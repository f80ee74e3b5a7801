"""From a decoded frame to an encoder's input and to a thumbnail."""

from __future__ import annotations

import io

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image

from vidx.pixels import fit
from vidx.schema.records import Preprocess

THUMBNAIL_PX = 160  # long side
THUMBNAIL_BYTES = 4096

# One for the process: a new converter per frame doubles the time and grows memory.
_REFORMATTER = VideoReformatter()


class PyAVPicture:
    """See `vidx.decoders.ShownFrame`. `sar` is the width of a pixel over its height.

    `turns`: quarters counterclockwise that bring the frame upright, where it does not say so itself.
    """

    def __init__(self, frame: av.VideoFrame, tick: int, sar: float, turns: int | None = None) -> None:
        self.frame, self.tick, self._sar = frame, tick, sar
        self._turns = round(frame.rotation / 90) % 4 if turns is None else turns

    def pixels(self, preprocess: Preprocess) -> np.ndarray:
        """See `vidx.decoders.ShownFrame.pixels`."""
        limit = preprocess.shrink_to * preprocess.short_side_px
        return fit(self._upright(limit), preprocess)

    def thumbnail(self) -> bytes:
        """See `vidx.decoders.ShownFrame.thumbnail`."""
        return thumbnail(self._upright(THUMBNAIL_PX))

    def _upright(self, limit: int) -> np.ndarray:
        """RGB uint8 (h, w, 3) as a viewer sees it, its short side shrunk to `limit` if larger (0: never)."""
        width, height = max(1, round(self.frame.width * self._sar)), self.frame.height
        short = min(width, height)
        if limit and short > limit:
            width, height = max(1, round(width * limit / short)), max(1, round(height * limit / short))
        rgb = _REFORMATTER.reformat(
            self.frame, width=width, height=height, format="rgb24", interpolation=Interpolation.AREA, threads=1
        ).to_ndarray()
        return np.rot90(rgb, self._turns)


def thumbnail(rgb: np.ndarray) -> bytes:
    """A JPEG of at most THUMBNAIL_BYTES, its long side at most THUMBNAIL_PX."""
    image = Image.fromarray(np.ascontiguousarray(rgb))
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    while True:
        for quality in (75, 60, 45, 30, 15):
            out = io.BytesIO()
            image.save(out, "JPEG", quality=quality, optimize=True)
            if out.tell() <= THUMBNAIL_BYTES:
                return out.getvalue()
        image = image.reduce(2)
