"""How far vectors move on the indexer's quicker ways to an encoder's input, against the encoder's own way.

    python benchmarks/drift.py FOLDER [--encoder conse] [--weights FILE ...] [--clips 50] [--json]

When it indexes, vidx has FFmpeg shrink a frame to at most twice the size wanted before the encoder's own filter runs;
the authors' code filters frames of full size (`shrink`). `--decode fast` and `keyframes` take other frames than those
on screen at the instants asked for. The same clips are decoded in these ways here, one of each video below FOLDER, and
the cosine of each to the exact one is printed: median, 5th percentile and worst. Beside it, for scale, the cosine of
vectors of different clips.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vidx import encoders
from vidx.errors import MediaError
from vidx.indexer.frames import clip_at
from vidx.schema.spaces import Space


def main() -> None:
    """Print a line for each way; with --json one JSON object after it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder", default="conse")
    parser.add_argument("--weights", type=Path, nargs="*", default=[])
    parser.add_argument("--clips", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    encoder = encoders.build(encoders.here(arguments.encoder, arguments.weights))
    space = encoder.spec.space
    ways: dict[str, tuple[Space, str]] = {
        "exact": (space, "exact"),
        "shrink": (replace(space, preprocess=replace(space.preprocess, shrink_to=0)), "exact"),
        "fast": (space, "fast"),
        "keyframes": (space, "keyframes"),
    }
    made: list[np.ndarray] = []
    for path in sorted(file for file in arguments.folder.rglob("*") if file.is_file()):
        if len(made) == arguments.clips:
            break
        try:
            clips = np.stack([clip_at(path, None, space, mode=mode) for space, mode in ways.values()])
        except MediaError:
            continue
        made.append(encoder.encode_video(clips))
    vectors = np.stack(made)
    others = (vectors[:, 0] @ vectors[:, 0].T)[~np.eye(len(vectors), dtype=bool)]
    found: dict[str, Any] = {"encoder": arguments.encoder, "clips": len(vectors)}
    for number, way in enumerate(ways):
        if number:
            found[way] = spread(np.einsum("pd,pd->p", vectors[:, 0], vectors[:, number]))
            print(f"{way:9} {found[way]}")
    found["different_clips_median"] = round(float(np.median(others)), 4)
    print(f"{arguments.encoder}: {len(vectors)} clips; different clips: {found['different_clips_median']}")
    if arguments.json:
        print(json.dumps(found))


def spread(cosines: np.ndarray) -> dict[str, float]:
    """Median, 5th percentile and worst."""
    of = {"median": np.median(cosines), "5th_percentile": np.percentile(cosines, 5), "worst": cosines.min()}
    return {name: round(float(cosine), 4) for name, cosine in of.items()}


if __name__ == "__main__":
    main()
