"""How well encoders of `vidx train shapes`, or others, do on rendered clips that none was trained on.

    python benchmarks/shapes.py ENCODER ... [--clips 1000] [--seed 99] [--folder DIR] [--json]

Writes a pool of H.264 files, decodes them as `vidx eval` does, and prints a table with a column for each encoder:
folders of `vidx train shapes`, or names. DIR then has what `vidx eval compare --pairs DIR/captions.csv` takes. With
`--json` the last line is one object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from vidx import encoders
from vidx.train.shapes.pool import make_pool
from vidx.train.shapes.report import figures_of


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoders", nargs="+", metavar="ENCODER", help="a folder, or a name")
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=99)
    parser.add_argument("--folder", type=Path, help="keep the pool here")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        pool = make_pool(arguments.folder or Path(scratch), arguments.clips, arguments.seed)
        found = {}
        for name in arguments.encoders:
            encoder = encoders.build(encoders.here(name))
            found[name] = {"clips_per_cpu_s": speed(encoder), **figures_of(encoder, pool)}
    print("| figure | " + " | ".join(found) + " |")
    print("|---" * (1 + len(found)) + "|")
    for figure in found[arguments.encoders[0]]:
        print(f"| {figure} | " + " | ".join(f"{each[figure]:.3f}" for each in found.values()) + " |")
    if arguments.json:
        print(json.dumps(found))


def speed(encoder: encoders.VideoTextEncoder) -> float:
    """Clips encoded in a second of CPU time, from frames in memory; the median of five."""
    space = encoder.spec.space
    side_px = space.preprocess.crop_px
    clips = np.random.default_rng(0).integers(0, 256, (16, space.frames, side_px, side_px, 3), np.uint8)
    encoder.encode_video(clips)
    rates = []
    for _ in range(5):
        began = time.process_time()
        encoder.encode_video(clips)
        rates.append(len(clips) / (time.process_time() - began))
    return float(np.median(rates))


if __name__ == "__main__":
    main()
