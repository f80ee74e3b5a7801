"""What `vidx index` costs: decoding beside ffmpeg, OpenCV and decord, whole runs, memory, and runs that find no news.

    python benchmarks/index.py [--quick] [--json] [--runs N] [--folder DIR]

Makes its own archive, in DIR if one is named, where films that are there already are used again. Ratios to peers are
their CPU seconds over ours: above 1 we take less. Ours and theirs run in turn; medians of N runs, memory once. --quick
is for trying the benchmark out: short films, few files. Linux only. docs/explanation/indexing.md says what is compared.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from vidx import encoders
from vidx.benchmarks._index_archive import films, make_films, make_known_tree, make_long, make_tiny
from vidx.benchmarks._index_peers import EVERY_S, ways
from vidx.benchmarks._index_stages import decode_only, encode_only, whole_run
from vidx.benchmarks.memory import peak_mb

ENCODER = "conse"
BETTER_OF = ("ffmpeg", "decord")  # that `exact` is measured against


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    film_s: int
    files: tuple[int, ...]  # of which peak memory is looked at
    hours: float  # of the long file
    known: tuple[int, int]  # files of the trees without news


FULL = Size(60, (100, 1000, 5000), 10.0, (20_000, 100_000))
QUICK = Size(20, (20, 100), 0.5, (1000, 5000))


def main() -> None:
    """Print a table for each part, and the ratios; with --json one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to work and to keep the films; it needs 3 GB")
    arguments = parser.parse_args()
    size, runs = QUICK if arguments.quick else FULL, max(1, arguments.runs)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        scratch = Path(name)
        archive = (arguments.folder or scratch) / f"films of {size.film_s} s"
        make_films(archive, films(size.film_s))
        make_tiny(scratch / "few", os.cpu_count() or 1)
        decoding = decode_costs(archive, scratch / "few", size.film_s, runs)
        stages = stage_times(archive, scratch, runs)
        peaks_mb = memory_peaks(scratch, size)
        known = recheck_times(scratch, size, runs)
    found = summary(decoding, stages, peaks_mb, known)
    for key, value in found.items():
        print(f"{key:32} {'left out' if value is None else value}")
    if arguments.json:
        details = {"decode_cpu_s_per_hour": decoding, "stages": stages, "peaks_mb": peaks_mb, "recheck_s": known}
        print(json.dumps({**found, "runs": runs, "quick": arguments.quick, **details}))


def decode_costs(archive: Path, warm_up: Path, film_s: int, runs: int) -> dict[str, dict[str, float]]:
    """CPU seconds per hour of film, by film and way."""
    taken: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in ("gop60", "gop250")}
    with ways(next(warm_up.iterdir())) as to_try:
        for _ in range(runs):
            for name, of_way in taken.items():
                for way, decode in to_try.items():
                    cpu_s, n_frames = decode(archive / f"{name}.mp4")
                    if abs(n_frames - film_s / EVERY_S) > 1:  # the last one of ffmpeg's hangs on how it rounds
                        sys.exit(f"{way} gave {n_frames} frames of {name}, not {film_s / EVERY_S:.0f}")
                    of_way[way].append(cpu_s)
    costs = {
        name: {way: round(statistics.median(cpu_s) * 3600 / film_s, 2) for way, cpu_s in of_way.items()}
        for name, of_way in taken.items()
    }
    print(f"{'CPU s per hour of H.264, 1080p':32} {'GOP 60':>9} {'GOP 250':>9}")
    for way in costs["gop60"]:
        print(f"{way:32} {costs['gop60'][way]:9.1f} {costs['gop250'][way]:9.1f}")
    return costs


def stage_times(archive: Path, scratch: Path, runs: int) -> dict[str, dict[str, float]]:
    """Wall and CPU seconds of decoding alone, encoding alone and whole runs, less those of one tiny clip per core."""
    taken: dict[str, list[tuple[float, float]]] = defaultdict(list)
    spec = encoders.here(ENCODER, ())
    for run in range(runs):
        started, _ = decode_only(scratch / "few", spec)
        done, clips = decode_only(archive, spec)
        taken["decode"].append((done[0] - started[0], done[1] - started[1]))
        taken["encode"].append(encode_only(clips, spec))
        started = whole_run(scratch / "few", scratch / f"few {run}", ENCODER)
        done = whole_run(archive, scratch / f"whole {run}", ENCODER)
        taken["whole"].append((done[0] - started[0], done[1] - started[1]))
        taken["start"].append(started)
    medians = {
        stage: {
            "wall_s": round(statistics.median(w for w, _ in of), 2),
            "cpu_s": round(statistics.median(c for _, c in of), 2),
        }
        for stage, of in taken.items()
    }
    print(f"{'stage':32} {'wall s':>9} {'CPU s':>9} {'CPUs used':>9}")
    for stage, of in medians.items():
        print(f"{stage:32} {of['wall_s']:9.2f} {of['cpu_s']:9.2f} {of['cpu_s'] / of['wall_s']:9.2f}")
    return medians


def memory_peaks(scratch: Path, size: Size) -> dict[str, float]:
    """The peak over all processes of a run, in MB, by archive."""
    for n in size.files:
        make_tiny(scratch / f"{n} files", n)
    make_long(scratch / f"{size.hours:g} hours", size.hours)
    peaks = {}
    print(f"{'archive':32} {'peak MB':>9}")
    for name in (*(f"{n} files" for n in size.files), f"{size.hours:g} hours"):
        store = scratch / f"store of {name}"
        peaks[name] = round(peak_mb(["index", str(scratch / name), "--store", str(store), "--encoder", ENCODER]), 1)
        print(f"{name:32} {peaks[name]:9.1f}")
        shutil.rmtree(store)
    return peaks


def recheck_times(scratch: Path, size: Size, runs: int) -> dict[str, float]:
    """Wall seconds of the whole command on trees without news, by how many files they have."""
    taken: dict[int, list[float]] = {n: [] for n in size.known}
    for run in range(runs + 1):
        for n, seconds in taken.items():
            tree, store = scratch / f"known {n}", scratch / f"store of known {n}"
            if run == 0:
                make_known_tree(tree, store, encoders.here(ENCODER, ()), n)
            wall_s, _ = whole_run(tree, store, ENCODER)
            if run > 0:  # the first one builds the search index
                seconds.append(wall_s)
    medians = {str(n): round(statistics.median(seconds), 3) for n, seconds in taken.items()}
    print(f"{'files without news':32} {'wall s':>9}")
    for files, wall_s in medians.items():
        print(f"{files:32} {wall_s:9.2f}")
    return medians


def summary(
    decoding: dict[str, dict[str, float]],
    stages: dict[str, dict[str, float]],
    peaks_mb: dict[str, float],
    recheck_s: dict[str, float],
    cores: int = os.cpu_count() or 1,
) -> dict[str, float | None]:
    """The figures that are watched; of two films the worse one, None where a peer is not installed."""
    both = ("gop60", "gop250")
    decode, encode = stages["decode"], stages["encode"]
    least_s = max(decode["wall_s"], encode["wall_s"], (decode["cpu_s"] + encode["cpu_s"]) / cores)
    (few, few_s), (many, many_s) = sorted((int(n), wall_s) for n, wall_s in recheck_s.items())
    peaks = list(peaks_mb.values())
    return {
        "pipeline_efficiency": round(stages["whole"]["wall_s"] / least_s, 3),
        "decode_exact_vs_ffmpeg_fps": _ratio(decoding, "exact", ("ffmpeg",), both),
        "decode_exact_vs_better": _ratio(decoding, "exact", BETTER_OF, both),
        "decode_fast_vs_ffmpeg_fps": _ratio(decoding, "fast", ("ffmpeg",), both),
        "decode_fast_vs_decord": _ratio(decoding, "fast", ("decord",), both),
        "decode_fast_vs_opencv": _ratio(decoding, "fast", ("opencv",), both),
        "decode_keyframes_vs_ffmpeg_fps": _ratio(decoding, "keyframes", ("ffmpeg",), ("gop60",)),
        "peak_memory_growth": round(max(peaks[1:]) / peaks[0], 3),
        "unchanged_files_per_s": round((many - few) / (many_s - few_s)),
    }


def _ratio(
    decoding: dict[str, dict[str, float]], mode: str, peers: tuple[str, ...], names: tuple[str, ...]
) -> float | None:
    """The thriftiest of some peers, however many threads it has, over a mode of ours; the worst over films."""
    ratios = []
    for of_way in (decoding[name] for name in names):
        theirs = [cpu_s for way, cpu_s in of_way.items() if way.startswith(peers)]
        if not theirs:
            return None
        ratios.append(min(theirs) / of_way[f"vidx {mode}"])
    return round(min(ratios), 3)


if __name__ == "__main__":
    main()
