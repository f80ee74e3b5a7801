"""How far vectors move on the indexer's fast way to an encoder's input, against the encoder's own way.

    python benchmarks/drift.py FOLDER [--encoder conse] [--weights FILE ...] [--clips 50] [--json]

When it indexes, vidx has FFmpeg shrink a frame to at most twice the size wanted before the encoder's own filter runs;
the authors' code filters frames of full size. The same clips are decoded both ways here, one from the middle of each
video below FOLDER, and the cosine of their two vectors is printed: median, 5th percentile and worst. Beside it, for
scale, the cosine of vectors of different clips.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from vidx import encoders
from vidx.errors import MediaError
from vidx.indexer.frames import clip_at


def main() -> None:
    """Print one line; with --json one JSON object after it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder", default="conse")
    parser.add_argument("--weights", type=Path, nargs="*", default=[])
    parser.add_argument("--clips", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    encoder = encoders.build(encoders.here(arguments.encoder, arguments.weights))
    fast = encoder.spec.space
    own = replace(fast, preprocess=replace(fast.preprocess, shrink_to=0))
    pairs: list[np.ndarray] = []
    for path in sorted(file for file in arguments.folder.rglob("*") if file.is_file()):
        if len(pairs) == arguments.clips:
            break
        try:
            clips = np.stack([clip_at(path, None, space) for space in (fast, own)])
        except MediaError:
            continue
        pairs.append(encoder.encode_video(clips))
    vectors = np.stack(pairs)
    same = np.einsum("pd,pd->p", vectors[:, 0], vectors[:, 1])
    others = (vectors[:, 1] @ vectors[:, 1].T)[~np.eye(len(vectors), dtype=bool)]
    found = {
        "encoder": arguments.encoder,
        "clips": len(vectors),
        "cosine_median": round(float(np.median(same)), 5),
        "cosine_5th_percentile": round(float(np.percentile(same, 5)), 5),
        "cosine_worst": round(float(same.min()), 5),
        "other_clips_median": round(float(np.median(others)), 5),
    }
    print(
        f"{found['encoder']}: {found['clips']} clips, fast against own way: cosine {found['cosine_median']} (median),"
        f" {found['cosine_5th_percentile']} (5th percentile), {found['cosine_worst']} (worst);"
        f" different clips: {found['other_clips_median']}"
    )
    if arguments.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
