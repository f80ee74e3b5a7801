"""Searches while a store grows: is each answer right for some committed moment, and how long does one ever take?

    python benchmarks/while_indexing.py [--queries 10000] [--every 1.0] [--json]

One process commits a video every second, this one keeps a reader refreshed and builds the index anew now and then, both
in threads of their own, and asks. An answer is right if it is that of a scan of the first n videos, for an n between
what the reader saw before the query and after it. Searching takes no lock; the longest time of a query says so.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vidx.schema import tables
from vidx.schema.records import Preprocess
from vidx.schema.spaces import Space
from vidx.schema.store import Store
from vidx.schema.writer import Commit, writing
from vidx.search.reader import Reader
from vidx.search.rebuild import rebuild

DIM, PER_VIDEO, ASKED = 32, 30, 20
SPACE = Space("benchmark", {"video": "00"}, Preprocess(8, 8), frames=1, pooling="none", dim=DIM)


def vectors_of(video: int) -> np.ndarray:
    """float32 (PER_VIDEO, DIM), unit norm; its clip ids are those from PER_VIDEO * video on."""
    return unit(np.random.default_rng(video).standard_normal((PER_VIDEO, DIM)))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scaled to length 1, float32."""
    scaled: np.ndarray = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return scaled


def commit_steadily(path: Path, every_s: float) -> None:
    """Commit videos one by one until killed."""
    with writing(Store.open(path)) as writer:
        video = 0
        while True:
            commit_video(writer.commit, writer.reserve_clip_ids, video)
            video += 1
            time.sleep(every_s)


def commit_video(commit: Callable[..., None], reserve: Callable[[int], int], video: int) -> None:
    """One video as an index run commits it."""
    first, name = reserve(PER_VIDEO), f"video {video}"
    assert first == PER_VIDEO * video
    clips = [
        {"clip_id": first + i, "video_id": name, "start_s": 10.0 * i, "end_s": 10.0 * i + 10, "vector": vector}
        | {"frame_pts": [i], "frame_pts_s": [10.0 * i]}
        for i, vector in enumerate(vectors_of(video))
    ]
    indexed: dict[str, Any] = dict.fromkeys(tables.INDEXED.names)
    indexed |= {"video_id": name, "space": SPACE.name, "state": "ok", "first_clip_id": first, "n_clips": PER_VIDEO}
    file = dict.fromkeys(tables.FILES.names) | {"path": f"/{video}.mp4", "path_bytes": f"/{video}.mp4".encode()}
    commit(Commit(clips={SPACE.name: clips}, indexed=[indexed], files=[file | {"video_id": name, "state": "present"}]))


class Expected:
    """The ten best of the first n videos, for every n and query."""

    def __init__(self, queries: np.ndarray) -> None:
        self._queries = queries
        self._best = [[(np.empty(0, np.float32), np.empty(0, np.int64))] for _ in queries]

    def ids(self, query: int, n_videos: int) -> list[int]:
        """Clip ids, best first."""
        known = self._best[query]
        while len(known) <= n_videos:
            scores, ids = known[-1]
            video = len(known) - 1
            fresh = np.einsum("nd,d->n", vectors_of(video), self._queries[query])
            scores, ids = np.append(scores, fresh), np.append(ids, PER_VIDEO * video + np.arange(PER_VIDEO))
            best = np.lexsort((ids, -scores))[:10]
            known.append((scores[best], ids[best]))
        return known[n_videos][1].tolist()


def main() -> int:
    """Print the figures; exit code 1 where an answer was wrong or a search failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between commits")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        store = Store.create(Path(scratch) / "store")
        with writing(store) as writer:
            writer.add_space(SPACE)
        child = multiprocessing.get_context("spawn").Process(
            target=commit_steadily, args=(store.path, arguments.every), daemon=True
        )
        child.start()
        try:
            result = ask(store, arguments.queries)
        finally:
            child.kill()
            child.join()
    print(json.dumps(result) if arguments.json else "\n".join(f"{name:18} {value}" for name, value in result.items()))
    return 1 if result["wrong"] or result["errors"] else 0


def ask(store: Store, n_queries: int) -> dict[str, Any]:
    """Ask while the store grows, evenly over at least as long as a dozen refreshes take."""
    queries = unit(np.random.default_rng(10**6).standard_normal((ASKED, DIM)))
    expected, reader, over = Expected(queries), Reader(store, SPACE), threading.Event()
    errors: list[str] = []
    counts = {"refreshes": 0, "rebuilds": 0}

    def keep_doing(name: str, work: Callable[[], Any], pause_s: float) -> None:
        while not over.wait(pause_s):
            try:
                work()
                counts[name] += 1
            except Exception as error:
                errors.append(f"{name}: {error}")

    while reader.collection.live.n_clips == 0:
        reader.refresh()
    threads = [
        threading.Thread(target=keep_doing, args=("refreshes", reader.refresh, 0.05)),
        threading.Thread(target=keep_doing, args=("rebuilds", lambda: rebuild(store, SPACE), 3.0)),
    ]
    for thread in threads:
        thread.start()
    first, wrong, times_ms, asked = n_videos(reader), 0, [], 0
    while asked < n_queries or counts["refreshes"] < 12 or counts["rebuilds"] < 2:
        query = asked % ASKED
        before = n_videos(reader)
        began = time.perf_counter()
        _, ids = reader.retrieve(queries[query])
        times_ms.append((time.perf_counter() - began) * 1000)
        after = n_videos(reader)
        wrong += ids.tolist() not in [expected.ids(query, n) for n in range(before, after + 1)]
        asked += 1
        time.sleep(0.001)
    over.set()
    for thread in threads:
        thread.join()
    return {
        "queries": asked,
        "wrong": wrong,
        "errors": errors,
        "videos_before": first,
        "videos_after": n_videos(reader),
        **counts,
        "p50_ms": round(float(np.median(times_ms)), 3),
        "p99_ms": round(float(np.percentile(times_ms, 99)), 3),
        "longest_ms": round(max(times_ms), 3),
    }


def n_videos(reader: Reader) -> int:
    """How many videos the reader sees now."""
    return reader.collection.live.n_clips // PER_VIDEO


if __name__ == "__main__":
    sys.exit(main())
