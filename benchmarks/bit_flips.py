"""Whether every one of many damaged files is accounted for: copies of good videos with bits flipped at random.

    python benchmarks/bit_flips.py FOLDER [--files 500] [--seed 0] [--decoder pyav] [--decode exact] [--encoder conse]

Flips between one bit in a million and one in a hundred, at least one, in copies of the files below FOLDER of at most
4 MB, in turn; some copies lose their end as well. Indexes them into a store that is thrown away. Exit code 1 if the run
ends early, a file is in no account or in two, one that could not be used has no reason, a clip lies outside its video,
or `vidx verify` finds anything.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store

MOST_BYTES = 4_000_000
SHORTENED = 0.1  # share of the copies whose end is cut off too
VIDX = str(Path(sys.executable).with_name("vidx"))


def main() -> None:
    """Print a table of states, then what is wrong, if anything is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--decoder", default="pyav")
    parser.add_argument("--decode", default="exact", help="exact, fast or keyframes")
    parser.add_argument("--encoder", default="conse")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        archive, store = Path(scratch) / "archive", Path(scratch) / "store"
        write_damaged(arguments.folder, archive, arguments.files, arguments.seed)
        began = time.monotonic()
        how = ["--encoder", arguments.encoder, "--decoder", arguments.decoder, "--decode", arguments.decode]
        run = subprocess.run(
            [VIDX, "index", str(archive), "--store", str(store), *how, "--json"], stdout=subprocess.PIPE, text=True
        )
        seconds = time.monotonic() - began
        events = [json.loads(line) for line in run.stdout.splitlines()]
        states = Counter(event["state"] for event in events if event["event"] == "file")
        wrong = complaints(archive, store, run.returncode, events)
    counts = ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
    print(f"{arguments.decoder} {arguments.decode}: {arguments.files} files in {seconds:.0f} s: {counts}")
    print("\n".join(wrong) or "every file accounted for")
    sys.exit(1 if wrong else 0)


def write_damaged(source: Path, archive: Path, n: int, seed: int) -> None:
    """Write n damaged copies; the same seed damages them alike."""
    good = sorted(path for path in source.rglob("*") if path.is_file() and 0 < path.stat().st_size <= MOST_BYTES)
    rng = np.random.default_rng(seed)
    archive.mkdir()
    for number in range(n):
        path = good[number % len(good)]
        content = np.frombuffer(path.read_bytes(), np.uint8).copy()
        flips = max(1, int(8 * len(content) * 10 ** rng.uniform(-6, -2)))
        places = rng.integers(0, 8 * len(content), flips)
        np.bitwise_xor.at(content, places // 8, (1 << (places % 8)).astype(np.uint8))
        if rng.random() < SHORTENED:
            content = content[: max(1, int(len(content) * rng.random()))]
        (archive / f"{number:04} {path.name}").write_bytes(content.tobytes())


def complaints(archive: Path, store_path: Path, returncode: int, events: list[dict[str, object]]) -> list[str]:
    """What is wrong with a run; empty for nothing."""
    found = [] if returncode == 0 else [f"the run ended with {returncode}"]
    files = [event for event in events if event["event"] == "file"]
    told = Counter(str(event["path"]) for event in files)
    found += [f"{path}: in no account" for path in map(str, archive.iterdir()) if not told[path]]
    found += [f"{path}: told {times} times" for path, times in told.items() if times > 1]
    unexplained = {"failed", "partial", "not_video"}
    found += [f"{event['path']}: no reason" for event in files if event["state"] in unexplained and not event["reason"]]
    snapshot = Snapshot(Store.open(store_path))
    [space] = Store.open(store_path).spaces()
    outside = snapshot.rows(
        f"SELECT c.video_id, c.start_s, c.end_s FROM {snapshot.clips(space)} c JOIN videos v USING (video_id)"
        " WHERE c.start_s < v.first_s - 0.001 OR c.end_s > v.duration_s + 0.001 OR c.end_s <= c.start_s"
    )
    found += [f"{video_id}: a clip from {start} to {end} s" for video_id, start, end in outside]
    verified = subprocess.run([VIDX, "verify", "--store", str(store_path)], capture_output=True, text=True)
    return found if verified.returncode == 0 else [*found, verified.stdout.strip()]


if __name__ == "__main__":
    main()
