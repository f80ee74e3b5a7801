"""`make demo`: make an archive, index it, search it, and show each hit beside the truth.

    python docs/demo/run.py OUTPUT [--videos FOLDER]

With a folder of videos of your own there is no truth to compare with: it is indexed, and the hits are shown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from make_archive import make_archive, truths

OWN_QUERIES = ("people", "an animal", "a car on a road", "food on a table", "water")
CLIP_S = 10.0


def main() -> int:
    """Exit code 1 where a search did not find its scene first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--videos", type=Path)
    arguments = parser.parse_args()
    store = arguments.output / ("store" if arguments.videos is None else "own-store")
    videos = arguments.videos or arguments.output / "archive"
    if arguments.videos is None:
        print(f"Making an archive in {videos} ...", flush=True)
        make_archive(videos)
    print(f"\n$ vidx index {videos} --encoder conse", flush=True)
    subprocess.run([*_vidx(), "index", str(videos), "--store", str(store), "--encoder", "conse"], check=True)
    if arguments.videos is not None:
        return _show_own(store, arguments.output)
    return _show_truths(store, videos, arguments.output)


def _show_truths(store: Path, videos: Path, output: Path) -> int:
    print(f"\n{'query':<24} {'found':<26} {'from':>6} {'to':>6}   {'true':>11}  score")
    wrong = 0
    for truth in truths():
        [hit] = _search(store, truth.query, 1, output / f"{truth.query.replace(' ', '_')}.png")
        name = str(Path(hit["path"]).relative_to(videos.absolute()))
        near = abs(hit["start_s"] - truth.start_s) <= CLIP_S and abs(hit["end_s"] - truth.end_s) <= CLIP_S
        right = name == truth.file and near
        wrong += not right
        print(
            f"{truth.query:<24} {name:<26} {hit['start_s']:>6.1f} {hit['end_s']:>6.1f}   "
            f"{truth.start_s:>4} to {truth.end_s:>3}  {hit['score']:.3f}  {'ok' if right else 'WRONG'}"
        )
    sheet = output / "contact_sheet.png"
    _search(store, truths()[0].query, 10, sheet)
    print(f"\n{len(truths()) - wrong} of {len(truths())} scenes found first. Contact sheet: {sheet}")
    print(f'Try your own: {_vidx()[0]} search "..." --store {store}')
    return int(wrong > 0)


def _show_own(store: Path, output: Path) -> int:
    for number, query in enumerate(OWN_QUERIES, 1):
        print(f'\n$ vidx search "{query}"', flush=True)
        sheet = output / f"sheet_{number}.png"
        subprocess.run([*_vidx(), "search", query, "-k", "5", "--store", str(store), "--sheet", str(sheet)], check=True)
    print(f"\nContact sheets: {output}/sheet_*.png")
    return 0


def _search(store: Path, query: str, k: int, sheet: Path) -> list[dict[str, Any]]:
    command = [
        *_vidx(),
        "search",
        query,
        "-k",
        str(k),
        "--store",
        str(store),
        "--format",
        "json",
        "--sheet",
        str(sheet),
    ]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    hits: list[dict[str, Any]] = json.loads(printed)["hits"]
    return hits


def _vidx() -> list[str]:
    return [str(Path(sys.executable).with_name("vidx"))]


if __name__ == "__main__":
    sys.exit(main())
