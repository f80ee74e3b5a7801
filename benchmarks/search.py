"""How fast and how well searches find, beside plain FAISS on the same codes in the same run.

    python benchmarks/search.py [--quick] [--clips N ...] [--seed N] [--json] [--folder DIR]

Makes stores of 100 thousand and 1 million clips (--quick: the million alone, without Parquet), and, where disk and
memory allow, a generation of 10 million. Vectors of 512 numbers are drawn around cluster centres that lean one way, as
those of real encoders do; queries mix two centres and lie apart from all clips, so that their best cosines are 0.2 to
0.35, as with texts. Another seed makes another archive. Ground truth is a float32 scan. Times are medians and 95th
percentiles of single queries on a warm cache, ours and FAISS's in turn; both use the threads FAISS takes by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from vidx.schema import tables
from vidx.schema.live import Ranges
from vidx.schema.records import Preprocess
from vidx.schema.spaces import Space
from vidx.schema.store import Store
from vidx.schema.writer import Commit, writing
from vidx.search.reader import Reader
from vidx.search.rebuild import complete, index_folder, rebuild
from vidx.vectors import _generations

DIM, QUERIES, PER_VIDEO = 512, 100, 360  # a clip every 10 s: videos of an hour
CLIPS_A_CLUSTER = 400
BLOCK = 36_000  # clips made at once
SPACE = Space("benchmark", {"video": "00"}, Preprocess(8, 8), frames=1, pooling="none", dim=DIM)


class Archive:
    """Vectors and queries of a made archive; block i is the same whenever it is asked for."""

    def __init__(self, n: int, seed: int) -> None:
        self.n, self._seed = n, seed
        rng = np.random.default_rng(seed)
        self._lean = unit(rng.standard_normal(DIM))
        self._centres = unit(rng.standard_normal((max(n // CLIPS_A_CLUSTER, 8), DIM)))
        self._other_lean = unit(rng.standard_normal(DIM))

    def block(self, first: int) -> np.ndarray:
        """float32 (m, DIM): the clips from `first` on; a video stays near three centres."""
        count = min(BLOCK, self.n - first)
        rng = np.random.default_rng((self._seed, 1, first))
        of_video = rng.integers(0, len(self._centres), (count // PER_VIDEO + 1, 3))
        chosen = of_video[np.arange(count) // PER_VIDEO, rng.integers(0, 3, count)]
        spread = rng.standard_normal((count, DIM), dtype=np.float32) / np.sqrt(DIM)
        return unit(0.6 * self._lean + 0.7 * self._centres[chosen] + 0.5 * spread)

    def queries(self, n: int = QUERIES) -> np.ndarray:
        """float32 (n, DIM)."""
        rng = np.random.default_rng((self._seed, 2))
        pairs = self._centres[rng.integers(0, len(self._centres), (n, 2))]
        meant = unit(pairs[:, 0] + 0.5 * pairs[:, 1] + 0.3 * unit(rng.standard_normal((n, DIM))))
        apart = unit(self._other_lean + 0.5 * unit(rng.standard_normal((n, DIM))))
        share = rng.uniform(0.25, 0.45, (n, 1))
        return unit(share * meant + np.sqrt(1 - share**2) * apart)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scaled to length 1, float32."""
    scaled: np.ndarray = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return scaled


def main() -> None:
    """Print a table, a line for each tier and size; with --json one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1 million clips without Parquet")
    parser.add_argument("--clips", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000], metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--folder", type=Path, help="where to work; it needs 5 GB, and 40 GB for 10 million")
    arguments = parser.parse_args()
    sizes = [1_000_000] if arguments.quick else arguments.clips
    results: dict[tuple[int, str], dict[str, Any]] = {}
    print(f"{'clips':>9} {'tier':5} {'build s':>8} {'MB':>7} {'p50 ms':>7} {'p95 ms':>7} {'FAISS p50':>9} {'ratio':>6}"
          f" {'q/s':>7} {'@10':>6} {'@100':>6} {'open s':>7} {'1st ms':>7}")  # fmt: skip
    for n in sizes:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
            free_gb = shutil.disk_usage(scratch).free / 1e9
            if n * DIM * 6.5 / 1e9 > free_gb:
                print(f"{n:9} left out: {free_gb:.0f} GB of disk are free")
                continue
            archive = Archive(n, arguments.seed)
            store = Store.create(Path(scratch) / "store")
            in_parquet = not arguments.quick and n <= 1_000_000
            if in_parquet:
                fill(store, archive)
            exact = ground_truth(archive)
            for tier in ("flat", "ivf") if n <= 1_000_000 else ("ivf",):
                began = time.monotonic()
                built = rebuild(store, SPACE, tier=tier) if in_parquet else build_directly(store, archive, tier)
                seconds = time.monotonic() - began
                if built is None:
                    print(f"{n:9} {tier}: did not pass the gate")
                    continue
                results[n, tier] = {"build_s": round(seconds, 1), **measure(store, archive, exact, in_parquet)}
                show(n, tier, results[n, tier])
                if in_parquet:
                    results[n, tier]["filters"] = filtered(store, archive)
    if arguments.json:
        print(json.dumps(summary(results, arguments.seed)))


def fill(store: Store, archive: Archive) -> None:
    """Commit an archive to the store as an index run would."""
    with writing(store) as writer:
        writer.add_space(SPACE)
        for first in range(0, archive.n, BLOCK):
            vectors = archive.block(first)
            rows = Commit()
            for at in range(0, len(vectors), PER_VIDEO):
                video_id = f"video {first + at}"
                own = vectors[at : at + PER_VIDEO]
                start = writer.reserve_clip_ids(len(own))
                rows.clips.setdefault(SPACE.name, []).extend(
                    clip_row(start + i, video_id, i, vector) for i, vector in enumerate(own)
                )
                indexed: dict[str, Any] = dict.fromkeys(tables.INDEXED.names)
                facts = {"state": "ok", "first_clip_id": start, "n_clips": len(own)}
                rows.indexed.append(indexed | {"video_id": video_id, "space": SPACE.name} | facts)
                path = f"/archive/{first + at}.mp4"
                names = {"path": path, "path_bytes": path.encode(), "video_id": video_id, "state": "present"}
                rows.files.append(dict.fromkeys(tables.FILES.names) | names)
            writer.commit(rows)


def clip_row(clip_id: int, video_id: str, number: int, vector: np.ndarray) -> dict[str, Any]:
    """A row of the clips table."""
    times = {"start_s": number * 10.0, "end_s": number * 10.0 + 10, "frame_pts": [number], "frame_pts_s": [0.0]}
    return {"clip_id": clip_id, "video_id": video_id, **times, "vector": vector}


def build_directly(store: Store, archive: Archive, tier: str) -> Any:
    """A generation without the Parquet it would come from."""
    began, folder = time.monotonic(), index_folder(store, SPACE) / "building-benchmark"
    folder.mkdir(parents=True)
    counts = np.full(-(-archive.n // PER_VIDEO), PER_VIDEO)
    counts[-1] = archive.n - counts[:-1].sum()
    ranges = Ranges(np.cumsum(counts) - counts, counts)
    clips = _generations.new_arrays(folder, ranges, DIM)
    clips.ids[:], clips.times_s[:] = np.arange(archive.n), 0
    for first in range(0, archive.n, BLOCK):
        clips.vectors[first : first + BLOCK] = archive.block(first)
    built = complete(folder, SPACE, clips, tier=tier, seed=0, began=began)
    return built if built.name else None


def ground_truth(archive: Archive) -> np.ndarray:
    """Scores float32 (QUERIES, 100) of the exact hundred best."""
    queries = archive.queries()
    best = np.empty((len(queries), 0), np.float32)
    for first in range(0, archive.n, BLOCK):
        best = np.concatenate([best, queries @ archive.block(first).T], axis=1)
        best = -np.partition(-best, 99, axis=1)[:, :100]
    return -np.sort(-best, axis=1)


def measure(store: Store, archive: Archive, exact: np.ndarray, in_parquet: bool) -> dict[str, Any]:
    """Times and recall of the generation in use, and of plain FAISS on its codes."""
    folder = index_folder(store, SPACE)
    current = folder / str(_generations.current_name(folder))
    open_s, first_ms = cold(current)
    generation = _generations.open_generation(current)
    search = Reader(store, SPACE).retrieve if in_parquet else Direct(generation).retrieve
    plain = faiss.read_index(str(current / "index.faiss"), faiss.IO_FLAG_MMAP_IFC)
    width = generation.meta["settings"].get("n_probed")
    parameters = faiss.SearchParametersIVF(nprobe=width) if width else None
    queries = archive.queries()
    for query in queries:  # so that what they read is in memory
        search(query, 10), plain.search(query[None], 10, params=parameters)
    ours, theirs = [], []
    for query in queries:
        ours.append(timed(lambda: search(query, 10)))  # noqa: B023
        theirs.append(timed(lambda: plain.search(query[None], 10, params=parameters)))  # noqa: B023
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        together = timed(lambda: list(pool.map(lambda query: search(query, 10), queries)))
    found = {k: np.stack([search(query, k)[0] for query in queries]) for k in (10, 100)}
    recall = {k: float((scores >= exact[:, k - 1 : k] - 1e-6).mean()) for k, scores in found.items()}
    return {
        "index_mb": round((current / "index.faiss").stat().st_size / 1e6),
        "p50_ms": statistics.median(ours),
        "p95_ms": float(np.percentile(ours, 95)),
        "faiss_p50_ms": statistics.median(theirs),
        "ratio": statistics.median(ours) / statistics.median(theirs),
        "queries_per_s": len(queries) / together * 1000,
        "recall_at_10": recall[10],
        "recall_at_100": recall[100],
        "cold_open_s": open_s,
        "cold_first_ms": first_ms,
        "n_probed": width,
        "best_cosines": [round(float(q), 3) for q in np.percentile(exact[:, 0], [5, 50, 95])],
    }


def filtered(store: Store, archive: Archive) -> dict[str, dict[str, Any]]:
    """Searches of what a filter leaves, by the share that it leaves: times, how many are found, how many are right."""
    collection, queries, figures = Reader(store, SPACE).collection, archive.queries()[:20], {}
    for share in (0.5, 0.01, 0.0001, 0.0):
        kept = np.flatnonzero(np.random.default_rng(3).random(archive.n) < share)
        best = np.empty((len(queries), 0), np.float32)
        for first in range(0, archive.n, BLOCK):
            own = kept[(kept >= first) & (kept < first + BLOCK)] - first
            best = np.concatenate([best, queries @ archive.block(first)[own].T], axis=1)
            best = -np.sort(-best, axis=1)[:, :10]
        times: list[float] = []
        right: list[bool] = []
        fewest = 10
        for query, exact in zip(queries, best, strict=True):
            times.append(timed(lambda: collection.search(query, 10, kept)))  # noqa: B023
            scores, ids = collection.search(query, 10, kept)
            fewest = min(fewest, len(ids))
            right += (scores >= exact[-1] - 1e-6).tolist() if len(exact) else []
        figures[f"{share:g}"] = {
            "clips": len(kept),
            "p50_ms": round(statistics.median(times), 2),
            "fewest": fewest,
            "recall_at_10": float(np.mean(right)) if right else None,
        }
        print(f"{'':9} filter leaves {share:g}: {figures[f'{share:g}']}", flush=True)
    return figures


class Direct:
    """Searches a generation as a reader does, where there is no store around it."""

    def __init__(self, generation: _generations.Generation) -> None:
        self._generation = generation

    def retrieve(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """See `vidx.search.reader.Reader.retrieve`."""
        [scores], [rows] = self._generation.index.search(query[None], k)
        return scores, self._generation.clips.ids[rows]


def timed(call: Any) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def cold(folder: Path) -> tuple[float, float]:
    """Seconds to open a generation in a new process with none of it in the page cache, and ms of the first search."""
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    code = f"""
import time, numpy as np, faiss
from pathlib import Path
from vidx.vectors._generations import open_generation
from vidx.vectors import flat, ivf
began = time.perf_counter()
generation = open_generation(Path({str(folder)!r}))
opened = time.perf_counter()
query = np.random.default_rng(0).standard_normal({DIM}).astype("f4")
generation.index.search(query[None] / np.linalg.norm(query), 10)
print(opened - began, (time.perf_counter() - opened) * 1000)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    opened, first = map(float, run.stdout.split())
    return opened, first


def show(n: int, tier: str, result: dict[str, Any]) -> None:
    """One line of the table."""
    print(
        f"{n:9} {tier:5} {result['build_s']:8.1f} {result['index_mb']:7}"
        f" {result['p50_ms']:7.2f} {result['p95_ms']:7.2f}"
        f" {result['faiss_p50_ms']:9.2f} {result['ratio']:6.3f} {result['queries_per_s']:7.1f}"
        f" {result['recall_at_10']:6.3f} {result['recall_at_100']:6.3f} {result['cold_open_s']:7.3f}"
        f" {result['cold_first_ms']:7.1f}",
        flush=True,
    )


def summary(results: dict[tuple[int, str], dict[str, Any]], seed: int) -> dict[str, Any]:
    """The figures that count, and all others by size and tier."""
    million, ten = 1_000_000, 10_000_000

    def of(n: int, tier: str, name: str) -> Any:
        return results.get((n, tier), {}).get(name)

    return {
        "seed": seed,
        "exact_vs_raw_faiss": of(million, "flat", "ratio"),
        "ivf_vs_raw_faiss": of(million, "ivf", "ratio"),
        "ivf_recall_at_10": of(million, "ivf", "recall_at_10"),
        "ivf_recall_at_100": of(million, "ivf", "recall_at_100"),
        "ivf_p50_ms_1m": of(million, "ivf", "p50_ms"),
        "ivf_p50_ms_10m": of(ten, "ivf", "p50_ms"),
        "cold_open_s_10m": of(ten, "ivf", "cold_open_s"),
        "all": {f"{n} {tier}": result for (n, tier), result in results.items()},
    }


if __name__ == "__main__":
    main()
