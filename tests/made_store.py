"""Stores made of vectors, without videos or encoders, and what a search of them must find, worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from vidx.config import SearchOptions
from vidx.schema import tables
from vidx.schema.records import Hit, Preprocess
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.schema.store import Store
from vidx.schema.writer import Commit, writing
from vidx.search.moments import moments
from vidx.search.run import search_vectors

DIM = 16
SPACE = Space("toy", {"video": "ab"}, Preprocess(8, 8), frames=1, pooling="mean", dim=DIM)
CLIP_S = 10.0


@dataclass
class Archive:
    """A store and what was put into it: unit vectors by video, in order of time, and the id of each clip."""

    store: Store
    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    ids: dict[str, list[int]] = field(default_factory=dict)

    def add(self, video_id: str, vectors: np.ndarray, paths: list[bytes], stride_s: float = CLIP_S) -> None:
        """Commit a video of as many clips as there are vectors, one every stride."""
        with writing(self.store) as writer:
            writer.add_space(SPACE)
            first = writer.reserve_clip_ids(len(vectors))
            ids = list(range(first, first + len(vectors)))
            indexed: dict[str, Any] = dict.fromkeys(tables.INDEXED.names)
            indexed |= {"video_id": video_id, "space": SPACE.name, "state": "ok", "first_clip_id": first}
            clips = [
                {
                    "clip_id": clip_id,
                    "video_id": video_id,
                    "start_s": number * stride_s,
                    "end_s": number * stride_s + CLIP_S,
                    "frame_pts": [10 * clip_id, 10 * clip_id + 1, 10 * clip_id + 2],
                    "frame_pts_s": [0.0, 1.0, 2.0],
                    "vector": vector,
                }
                for number, (clip_id, vector) in enumerate(zip(ids, vectors, strict=True))
            ]
            thumbnails = [
                {"video_id": video_id, "frame_pts": 10 * clip_id + 1, "image": f"picture of {clip_id}".encode()}
                for clip_id in ids
                if clip_id % 3
            ]
            rows = [self._file(video_id, path) for path in paths]
            indexed |= {"n_clips": len(ids), "indexed_at": datetime.now(UTC)}
            writer.commit(Commit(thumbnails=thumbnails, clips={SPACE.name: clips}, indexed=[indexed], files=rows))
        self.vectors[video_id], self.ids[video_id] = vectors, ids

    def forget(self, video_id: str, path: bytes) -> None:
        """No path leads to a video any more."""
        with writing(self.store) as writer:
            writer.commit(Commit(files=[self._file(video_id, path) | {"state": "forgotten"}]))
        del self.vectors[video_id], self.ids[video_id]

    @staticmethod
    def _file(video_id: str, path: bytes) -> dict[str, Any]:
        row: dict[str, Any] = dict.fromkeys(tables.FILES.names)
        text = path.decode("utf-8", "backslashreplace")
        return row | {"path": text, "path_bytes": path, "video_id": video_id, "state": "present"}

    def search(self, vector: np.ndarray, k: int, by: str) -> list[Hit]:
        ranked, _ = search_vectors(Snapshot(self.store), SPACE, [vector], SearchOptions(k=k, by=by))
        return [hit for hit, _ in ranked]

    def by_hand(self, vector: np.ndarray, by: str) -> list[tuple[list[int], str, float, float, float]]:
        """All hits, best first: clip ids, video, score, start, end. Written for clarity, one video after another."""
        background = float(np.concatenate(list(self.vectors.values())).mean(axis=0) @ vector)
        spans = []
        for video_id, vectors in self.vectors.items():
            ids, starts_s, scores = self.ids[video_id], self.starts_s(video_id), vectors @ vector
            found = moments(starts_s, starts_s + CLIP_S, scores, background)
            if by == "clip":
                spans += [
                    (float(score), ids[n], [ids[n]], video_id, start_s, start_s + CLIP_S)
                    for n, (score, start_s) in enumerate(zip(scores, starts_s, strict=True))
                ]
            else:
                spans += [
                    (m.score, ids[m.peak], [ids[n] for n in m.clips], video_id, m.start_s, m.end_s)
                    for m in (found[:1] if by == "video" else found)
                ]
        spans.sort(key=lambda span: (-span[0], span[1]))
        return [(ids, video_id, score, start_s, end_s) for score, _, ids, video_id, start_s, end_s in spans]

    def starts_s(self, video_id: str) -> np.ndarray:
        return np.arange(len(self.vectors[video_id])) * (2.5 if video_id.startswith("dense") else CLIP_S)


def unit(vectors: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return scaled
