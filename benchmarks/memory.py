"""Whether memory grows with the archive: the peak of `vidx index` over few files and over ten times as many.

    python benchmarks/memory.py [--encoder conse] [--files 50 500] [--runs 3] [--workers N] [--json]

Generates the files, all of one kind and no two alike, into a temporary folder. A figure is the largest sum of the
proportional set sizes (PSS, /proc/PID/smaps_rollup: shared pages are split among those who share them) over the
command and all its children, looked at every 50 ms; medians over runs into new stores. Linux only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

EVERY_S = 0.05
WIDTH, HEIGHT, RATE, SECONDS = 320, 240, 5, 10


def main() -> None:
    """Print a line for each number of files, and the ratio; with --json one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="conse")
    parser.add_argument("--files", type=int, nargs=2, default=(50, 500), metavar=("FEW", "MANY"))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--workers", type=int, help="decode processes; the default is that of vidx")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    few, many = sorted(arguments.files)
    options = ["--encoder", arguments.encoder, *(["--workers", str(arguments.workers)] if arguments.workers else [])]
    peaks_mb: dict[int, list[float]] = {few: [], many: []}
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(many):
            make_video(Path(scratch) / str(many) / f"{number:05}.mp4", number)
        for path in sorted((Path(scratch) / str(many)).iterdir())[:few]:
            (Path(scratch) / str(few)).mkdir(exist_ok=True)
            (Path(scratch) / str(few) / path.name).hardlink_to(path)
        for run in range(arguments.runs):
            for n_files, peaks in peaks_mb.items():
                store = Path(scratch) / f"store {n_files} {run}"
                peaks.append(peak_mb(["index", str(Path(scratch) / str(n_files)), "--store", str(store), *options]))
    medians_mb = {n_files: statistics.median(peaks) for n_files, peaks in peaks_mb.items()}
    ratio = medians_mb[many] / medians_mb[few]
    for n_files, peaks in peaks_mb.items():
        runs = ", ".join(f"{peak:.0f}" for peak in peaks)
        print(f"{n_files:5} files  peak {medians_mb[n_files]:7.1f} MB  (runs: {runs})")
    print(f"ratio {ratio:.3f}")
    if arguments.json:
        peaks_of = {f"peak_{n_files}_files_mb": round(median, 1) for n_files, median in medians_mb.items()}
        print(json.dumps({"encoder": arguments.encoder, "runs": arguments.runs, **peaks_of, "ratio": round(ratio, 3)}))


def make_video(path: Path, seed: int) -> None:
    """10 s of coloured tiles that change with every frame."""
    path.parent.mkdir(exist_ok=True)
    dice = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, RATE)
        stream.options = {"preset": "ultrafast", "g": str(2 * RATE)}
        for number in range(RATE * SECONDS):
            tiles = dice.integers(0, 256, (HEIGHT // 40, WIDTH // 40, 3), np.uint8)
            pixels = np.ascontiguousarray(tiles.repeat(40, axis=0).repeat(40, axis=1))
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def peak_mb(arguments: list[str]) -> float:
    """Run `vidx` and return the peak over its process tree, in MB."""
    command = [str(Path(sys.executable).with_name("vidx")), *arguments]
    peak_kb = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak_kb = max(peak_kb, sum(map(pss_kb, family(process.pid))))
            time.sleep(EVERY_S)
    if process.returncode != 0:
        sys.exit(process.returncode)
    return peak_kb * 1024 / 1e6


def family(pid: int) -> set[int]:
    """A process and all its descendants."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # a process may end meanwhile
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = {pid}
    while children := {child for child, parent in parents.items() if parent in found} - found:
        found |= children
    return found


def pss_kb(pid: int) -> int:
    """Proportional set size of a process; 0 once it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


if __name__ == "__main__":
    main()
