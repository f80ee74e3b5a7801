"""Frames of single clips, decoded in processes of their own: what search, export and evaluations ask of the indexer."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidx.config import CLIP_S
from vidx.errors import InputError, Unreadable
from vidx.indexer.process import DecodeProcess, Limits, NoAnswer, job_message
from vidx.indexer.sampling import Sampling
from vidx.indexer.walk import storable_mtime_ns
from vidx.schema.records import Preprocess, Video, printable
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
    path, ticks, decoder, mode = _file_of_clip(store, space_name, clip_id)
    preprocess = store.space(space_name).preprocess
    return _decoded(path, {"kind": "ticks", "ticks": ticks}, decoder, preprocess, mode)


def frames_around(
    store: Store, space_name: str, clip_id: int, instants_s: Sequence[float], look: Look
) -> Iterator[np.ndarray]:
    """Clips of a live clip's video around instants in player time, ascending, taken as a look of strided frames says.

    Yields uint8 (T, h, w, 3) for each. Raises InputError where there is no such clip, Unreadable where its file is
    gone, has changed or gives no more clips.
    """
    path, _, _, _ = _file_of_clip(store, space_name, clip_id)
    asked = {"kind": "around", "sampling": asdict(look.sampling), "instants": list(instants_s)}
    job = job_message(path, asked, _DECODER, [look.preprocess], thumbnails=False, threads=os.cpu_count() or 1)
    waiting, facts, reason = deque(instants_s), None, None
    with _process() as process:
        try:
            for header, payloads in process.answers(job):
                if header["kind"] == "opened" and facts is None:
                    facts = Video(**header["facts"])
                elif header["kind"] == "clip":
                    assert facts is not None
                    frames = np.frombuffer(payloads[0], np.uint8).reshape(header["views"][0]["shape"])
                    yield _in_views(frames, look.sampling.indices_around(facts, waiting.popleft()))[0]
                elif header["kind"] == "end":
                    reason = header["reason"]
        except NoAnswer as error:
            reason = str(error)
    if waiting:
        raise Unreadable(f"{printable(path)}: {reason}")


def _file_of_clip(store: Store, space_name: str, clip_id: int) -> tuple[bytes, list[int], str, str]:
    """Path of a live clip's file, ticks of its frames, and decoder and mode they were taken by."""
    snapshot = Snapshot(store)
    found = snapshot.rows(
        "SELECT f.path_bytes, f.size, f.mtime_ns, c.frame_pts, n.decoder, n.decode_mode FROM"
        f" {snapshot.clips(space_name)} c JOIN files f USING (video_id)"
        " JOIN newest n ON n.video_id = c.video_id AND n.space = $space WHERE c.clip_id = $id ORDER BY f.path_bytes",
        {"space": space_name, "id": clip_id},
    )
    if not found:
        raise InputError(f"no clip {clip_id} in {space_name}")
    for path, size, mtime_ns, ticks, decoder, mode in found:
        if os.path.isfile(path) and _stamp(path) == (size, mtime_ns):
            return path, ticks, decoder, mode
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
        except NoAnswer as error:
            reason = str(error)
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


@dataclass(frozen=True)
class Look:
    """Which frames of a video to take, and how an encoder wants them."""

    sampling: Sampling
    preprocess: Preprocess

    @classmethod
    def of_fields(cls, sampling: Mapping[str, Any], preprocess: Preprocess) -> Look:
        """From the fields of a Sampling by name. Raises TypeError for others, ValueError where they don't fit."""
        return cls(Sampling(**sampling), preprocess)


@dataclass(frozen=True)
class Looked:
    """What a video gave: for each look its views, uint8 (clips x crops, T, side, side, 3), crops of a clip together.

    `indices` int64 (clips, T) for each look say which frames these are. Where it gave nothing, `reason` says why.
    """

    views: tuple[np.ndarray, ...] = ()
    indices: tuple[np.ndarray, ...] = ()
    facts: Video | None = None
    reason: str | None = None


def looked_at(asked: Iterable[tuple[Path, Sequence[Look]]]) -> Iterator[Looked]:
    """Videos by their paths, each decoded once for all its looks, in the order asked for; as many at once as cores."""
    cores = os.cpu_count() or 1
    children = _Children()
    waiting: deque[Future[Looked]] = deque()
    pool = ThreadPoolExecutor(cores)
    try:
        for path, looks in asked:
            waiting.append(pool.submit(children.look, path, looks))
            if len(waiting) > 2 * cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        children.kill()
        pool.shutdown(cancel_futures=True)


class _Children:
    """A decode process for each thread that asks, which must outlive it."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._all: list[DecodeProcess] = []

    def look(self, path: Path, looks: Sequence[Look]) -> Looked:
        asked = {"kind": "sampled", "samplings": [asdict(look.sampling) for look in looks]}
        sizes = [look.preprocess for look in looks]
        job = job_message(os.fsencode(path.absolute()), asked, _DECODER, sizes, thumbnails=False, threads=1)
        facts, views = None, None
        try:
            for header, payloads in self._process().answers(job):
                if header["kind"] == "opened":
                    facts = Video(**header["facts"])
                elif header["kind"] == "clip":
                    shapes = [view["shape"] for view in header["views"]]
                    views = [
                        np.frombuffer(pixels, np.uint8).reshape(shape)
                        for pixels, shape in zip(payloads[::2], shapes, strict=True)
                    ]
                elif header["kind"] == "end":
                    reason = header["reason"]
        except NoAnswer as error:
            reason = str(error)
        if facts is None or views is None:
            return Looked(reason=reason or "it gave no frames")
        indices = tuple(look.sampling.indices(facts) for look in looks)
        shown = tuple(_in_views(*pair) for pair in zip(views, indices, strict=True))
        return Looked(shown, indices, facts)

    def _process(self) -> DecodeProcess:
        process: DecodeProcess | None = getattr(self._own, "process", None)
        if process is None or not process.usable:
            process = self._own.process = DecodeProcess(Limits(), log=None)
            self._all.append(process)
        return process

    def kill(self) -> None:
        for process in self._all:
            with suppress(OSError):
                process.kill()


def _in_views(frames: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Frames (n, side, side, 3) or (n, crops, side, side, 3) of the distinct indices, as `Looked` has them."""
    chosen = frames[np.searchsorted(np.unique(indices), indices)]
    if chosen.ndim == 5:
        return chosen
    return np.moveaxis(chosen, 2, 1).reshape(-1, indices.shape[1], *frames.shape[2:])


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
