"""Frames of single clips, decoded in a process of their own: what search and export may ask of the indexer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vidx.config import CLIP_S
from vidx.errors import InputError, Unreadable
from vidx.indexer.process import DecodeProcess, Limits, ProcessDied, job_message
from vidx.indexer.walk import storable_mtime_ns
from vidx.schema.records import Preprocess, printable
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.schema.store import Store

_DECODER = "pyav"


def clip_at(path: Path, at_s: float | None, space: Space, clip_s: float = CLIP_S, mode: str = "exact") -> np.ndarray:
    """The frames a space would embed for the clip of a video around an instant; of the whole video for None.

    Returns uint8 (T, h, w, 3). Raises InputError where there is no such file, Unreadable where it gives no frames.
    """
    if not path.is_file():
        raise InputError(f"no file {path}")
    asked = {"kind": "at", "at_s": at_s, "clip_s": clip_s, "frames": space.frames}
    return _decoded(os.fsencode(path.absolute()), asked, _DECODER, space.preprocess, mode)


def frames_of_clip(store: Store, space_name: str, clip_id: int) -> np.ndarray:
    """The frames that were embedded for a live clip, decoded again by their ticks.

    Returns uint8 (T, h, w, 3): the same to the last bit where `indexed.decode_mode` is `exact` and the decoder is of
    the same build. Raises InputError where there is no such clip, Unreadable where its file is gone or has changed.
    """
    snapshot = Snapshot(store)
    found = snapshot.rows(
        "SELECT f.path_bytes, f.size, f.mtime_ns, c.frame_pts, n.decoder, n.decode_mode FROM"
        f" {snapshot.clips(space_name)} c JOIN files f USING (video_id)"
        " JOIN newest n ON n.video_id = c.video_id AND n.space = $space WHERE c.clip_id = $id ORDER BY f.path_bytes",
        {"space": space_name, "id": clip_id},
    )
    if not found:
        raise InputError(f"no clip {clip_id} in {space_name}")
    preprocess = store.space(space_name).preprocess
    for path, size, mtime_ns, ticks, decoder, mode in found:
        if os.path.isfile(path) and _stamp(path) == (size, mtime_ns):
            return _decoded(path, {"kind": "ticks", "ticks": ticks}, decoder, preprocess, mode)
    raise Unreadable(f"{printable(found[0][0])} is gone or has changed", hint="plug its drive in, or index again")


def _stamp(path: bytes) -> tuple[int, int]:
    facts = os.stat(path)
    return facts.st_size, storable_mtime_ns(facts)


def _decoded(
    path: bytes, asked: dict[str, Any], decoder: str, preprocess: Preprocess, mode: str = "exact"
) -> np.ndarray:
    job = job_message(path, asked, decoder, [preprocess], mode=mode, thumbnails=False, threads=os.cpu_count() or 1)
    with _process() as process:
        frames = None
        try:
            for header, payloads in process.answers(job):
                if header["kind"] == "clip":
                    frames = np.frombuffer(payloads[0], np.uint8).reshape(header["views"][0]["shape"])
                elif header["kind"] == "end":
                    reason = header["reason"]
        except ProcessDied as death:
            reason = str(death)
    if frames is None:
        raise Unreadable(f"{printable(path)}: {reason}")
    return frames


@contextmanager
def _process() -> Iterator[DecodeProcess]:
    process = DecodeProcess(Limits(), log=None)
    try:
        yield process
    finally:
        process.kill()


def still(path: Path, space: Space) -> np.ndarray | None:
    """A picture as a clip in which nothing moves: uint8 (T, h, w, 3). None where the file is no picture Pillow knows.

    Raises InputError where there is no such file, or where the picture can't be read to its end.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    from vidx.decoders import fit

    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError:
        return None
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} can't be read: {error}") from error
    pixels = fit(np.asarray(upright), space.preprocess)
    return np.repeat(pixels[None], space.frames, axis=0)
