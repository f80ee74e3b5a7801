"""How long it takes to label an archive from its stored vectors, beside what cannot be left out.

    python benchmarks/tag.py [--quick] [--json] [--clips N] [--labels SET] [--runs N] [--folder DIR]

Makes a store of 1 million clips of the built-in encoder's space (--quick: 100 thousand) and runs `vidx tag` on it as a
user does, in a process of its own. In turn with that, in the same run: reading the same vectors from the store and
nothing else, and the bare product of as many vectors with the labels', both with all cores. `ratio` is the command's
time over the sum of the two. The memory is the command's peak; that of a tenth of the clips stands beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command line has it: a thread for each block instead

import numpy as np

from vidx import encoders
from vidx.schema import tables
from vidx.schema.live import batches, live_ranges
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.schema.store import Store
from vidx.schema.writer import Commit, writing
from vidx.search.labels import read_labels

PER_VIDEO, BLOCK = 360, 36_000  # a clip every 10 s: videos of an hour
AT_ONCE = 8192  # rows of a product


def main() -> None:
    """Print a table; with --json one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100 thousand clips, one run")
    parser.add_argument("--clips", type=int)
    parser.add_argument("--labels", default="kinetics400")
    parser.add_argument("--runs", type=int)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--folder", type=Path, help="where to work; a million clips need 4 GB")
    arguments = parser.parse_args()
    n_clips = arguments.clips or (100_000 if arguments.quick else 1_000_000)
    n_runs = arguments.runs or (1 if arguments.quick else 3)
    space = encoders.here("conse").space
    n_labels = len(read_labels(arguments.labels).labels)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        small, whole = (Path(scratch) / name for name in ("small", "whole"))
        fill(small, space, n_clips // 10)
        fill(whole, space, n_clips)
        _, small_mb = tagged(small, arguments.labels)
        times: dict[str, list[float]] = {"read_s": [], "product_s": [], "tag_s": []}
        peaks = []
        for _ in range(n_runs):
            times["read_s"].append(timed(lambda: read(whole, space)))
            times["product_s"].append(product(n_clips, space.dim, n_labels))
            seconds, peak_mb = tagged(whole, arguments.labels)
            times["tag_s"].append(seconds)
            peaks.append(peak_mb)
        rows_mb = sum(path.stat().st_size for path in (whole / "tags").rglob("*.parquet")) / 1e6 / n_runs
    ratios = [tag / (read + bare) for read, bare, tag in zip(*times.values(), strict=True)]
    figures: dict[str, Any] = {"clips": n_clips, "labels": n_labels, "runs": n_runs}
    figures |= {name: round(statistics.median(values), 2) for name, values in times.items()}
    figures |= {"ratio": round(statistics.median(ratios), 2), "ratios": [round(ratio, 2) for ratio in ratios]}
    figures |= {"peak_mb": round(max(peaks)), "peak_mb_of_a_tenth": round(small_mb), "rows_mb": round(rows_mb)}
    for name, value in figures.items():
        print(f"{name:<20} {value}")
    if arguments.json:
        print(json.dumps(figures))


def fill(path: Path, space: Space, n_clips: int) -> None:
    """A store of unit vectors that lean one way, as those of real clips do."""
    rng = np.random.default_rng(0)
    lean = rng.standard_normal(space.dim).astype(np.float32)
    store = Store.create(path)
    with writing(store) as writer:
        writer.add_space(space)
        for first in range(0, n_clips, BLOCK):
            n = min(BLOCK, n_clips - first)
            vectors = lean + rng.standard_normal((n, space.dim), dtype=np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            commit = Commit()
            for at in range(0, n, PER_VIDEO):
                _add_video(
                    commit, f"b1-{first + at:032x}", space, writer.reserve_clip_ids(PER_VIDEO), vectors[at:][:PER_VIDEO]
                )
            writer.commit(commit)
        writer.compact()


def _add_video(commit: Commit, video_id: str, space: Space, first_id: int, vectors: np.ndarray) -> None:
    for number, vector in enumerate(vectors):
        times = {"start_s": number * 10.0, "end_s": number * 10.0 + 10, "frame_pts": [number], "frame_pts_s": [0.0]}
        clip = {"clip_id": first_id + number, "video_id": video_id, **times, "vector": vector}
        commit.clips.setdefault(space.name, []).append(clip)
    facts = {"state": "ok", "first_clip_id": first_id, "n_clips": len(vectors)}
    indexed = dict.fromkeys(tables.INDEXED.names) | {"video_id": video_id, "space": space.name} | facts
    commit.indexed.append(indexed)
    path = f"/archive/reels of 1987/{video_id}.mp4"
    names = {"path": path, "path_bytes": path.encode(), "video_id": video_id, "state": "present"}
    commit.files.append(dict.fromkeys(tables.FILES.names) | names)


def read(path: Path, space: Space) -> None:
    """Every live vector, and nothing done with it."""
    snapshot = Snapshot(Store.open(path))
    live, _ = live_ranges(snapshot, space)
    n_read = sum(len(ids) for ids, _, _ in batches(snapshot, space, live))
    assert n_read == live.n_clips


def product(n_clips: int, dim: int, n_labels: int) -> float:
    """Seconds of the products alone, of blocks in memory, a block for each core at a time."""
    rng = np.random.default_rng(1)
    block = rng.standard_normal((AT_ONCE, dim), dtype=np.float32)
    labels = rng.standard_normal((n_labels, dim), dtype=np.float32)
    sizes = [AT_ONCE] * (n_clips // AT_ONCE) + [n_clips % AT_ONCE]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return timed(lambda: list(pool.map(lambda size: float((block[:size] @ labels.T).sum()), sizes)))


def tagged(path: Path, labels: str) -> tuple[float, float]:
    """Seconds and peak memory in MB of the command."""
    command = [sys.executable, "-m", "vidx.cli", "tag", "--store", str(path), "--labels", labels]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"vidx tag ended with {process.returncode}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def timed(call: Any) -> float:
    """Seconds."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
