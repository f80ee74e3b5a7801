"""What `vidx dupes` finds of copies that are known: re-encodes of real videos, indexed beside the originals.

    python benchmarks/dupes.py FOLDER WORK [--encoder conse] [--leave-out GLOB ...] [--ignore NAME ...]
                                [--segments FILE] [--json]

Makes copies of the videos of at least 9.5 s below FOLDER in WORK/copies (lower quality, half the size, 5 % cropped at
each side, brighter, with a logo, 10 frames a second, all of these, and cut at the head by 1, 2.5 and 5 s), indexes both
into WORK/store, and tells by threshold: precision and recall of pairs of videos; of pairs of clips, by kind of copy;
how the cosine falls with the shift; and the same for pairs of clips of unrelated videos. What is there already is not
made again. --leave-out names originals that are not copied. Nothing is drawn at random.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.search.collection import Collection, open_collection
from vidx.search.dupes import duplicates
from vidx.search.query import settled_space

LEAST_S, LONG_S, HALF_CLIP_S = 9.5, 60.0, 5.0
CUTS_S = {"cut1": 1.0, "cut2.5": 2.5, "cut5": 5.0}
THRESHOLDS = (0.80, 0.85, 0.88, 0.90, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98)
Change = Callable[[np.ndarray], np.ndarray]  # a picture uint8 (height, width, 3) to another


def half(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    return np.asarray(Image.fromarray(picture).resize((width // 4 * 2, height // 4 * 2)))


def cropped(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    top, left = height // 20, width // 20
    return picture[top : height - top, left : width - left]


def brighter(picture: np.ndarray) -> np.ndarray:
    return np.clip(picture * 1.15 + 10, 0, 255).astype(np.uint8)


def with_logo(picture: np.ndarray) -> np.ndarray:
    """A chequered box, an eighth of the width, in a corner."""
    size = picture.shape[1] // 8
    at = np.indices((size, size)) // max(1, size // 6)
    marked = picture.copy()
    marked[10 : 10 + size, -10 - size : -10] = np.where((at.sum(axis=0) % 2)[..., None], (230, 30, 30), 255)
    return marked


def all_of_these(picture: np.ndarray) -> np.ndarray:
    return with_logo(brighter(half(cropped(picture))))


# Of each kind of copy: what is done to the pictures, the quality (CRF of H.264), and every how many frames one is kept.
KINDS: dict[str, tuple[Change | None, int]] = {
    "quality": (None, 38),
    "half": (half, 23),
    "crop": (cropped, 23),
    "bright": (brighter, 23),
    "logo": (with_logo, 23),
    "rate": (None, 23),
    "all": (all_of_these, 34),
    **dict.fromkeys(CUTS_S, (None, 23)),
}


def make_copy(source: Path, target: Path, kind: str) -> None:
    """Re-encode the video stream; times stay, less what is cut at the head."""
    change, crf = KINDS[kind]
    cut_s, least_step_s = CUTS_S.get(kind, 0.0), 0.1 if kind in ("rate", "all") else 0.0
    aside = target.with_suffix(".part.mp4")
    with av.open(str(source)) as given, av.open(str(aside), "w", format="mp4") as made:
        stream, last_s = None, -1.0
        for frame in given.decode(video=0):
            time_s = frame.time - cut_s
            if time_s < 0 or time_s < last_s + least_step_s - 1e-6:
                continue
            last_s = time_s
            whole: np.ndarray = frame.to_ndarray(format="rgb24")
            changed = whole if change is None else change(whole)
            height, width = changed.shape[0] // 2 * 2, changed.shape[1] // 2 * 2
            picture = np.ascontiguousarray(changed[:height, :width])
            if stream is None:
                stream = made.add_stream("libx264", rate=30)
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                stream.codec_context.time_base = Fraction(1, 1000)
                stream.options = {"crf": str(crf), "preset": "veryfast"}
            new = av.VideoFrame.from_ndarray(picture, format="rgb24")
            new.pts, new.time_base = round(time_s * 1000), Fraction(1, 1000)
            made.mux(stream.encode(new))
        if stream is not None:
            made.mux(stream.encode(None))
    aside.rename(target)


def length_s(path: Path) -> float:
    try:
        with av.open(str(path)) as container:
            return (container.duration or 0) / av.time_base if container.streams.video else 0.0
    except av.FFmpegError:
        return 0.0


def make_copies(folder: Path, copies: Path, left_out: list[str]) -> None:
    """WORK/copies/NAME--KIND.mp4 of each original that is long enough; cuts only where several clips are left."""
    for source in sorted(path for path in folder.rglob("*") if path.is_file()):
        long_s = length_s(source)
        if long_s < LEAST_S or any(source.match(pattern) for pattern in left_out):
            continue
        for kind in KINDS:
            target = copies / f"{source.stem}--{kind}.mp4"
            wanted = kind == "all" or (long_s >= 15 if kind in CUTS_S else long_s <= LONG_S)
            if wanted and not target.exists():
                make_copy(source, target, kind)


def measure(store: Store, ignored: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Rows of each table. Pairs of different videos, one of which is `ignored`, are neither right nor wrong."""
    snapshot = Snapshot(store)
    collection = open_collection(snapshot, settled_space(store, None))
    rows = snapshot.rows("SELECT video_id, path FROM files WHERE video_id IS NOT NULL")
    places = {video_id: (Path(path).stem, Path(path).parent.name) for video_id, path in rows}
    videos = {places[collection.video_id(n)][0]: n for n in range(len(collection.live.firsts))}
    return {
        "pairs of videos, by threshold": [of_pairs(snapshot, collection, places, ignored, at) for at in THRESHOLDS],
        "clips of a copy against the original's": list(of_kinds(collection, videos)),
        "clips of unrelated videos": [of_unrelated(collection, videos, ignored)],
    }


def family(name: str) -> str:
    return name.split("--")[0]


def cut_s(name: str) -> float:
    return CUTS_S.get(name.partition("--")[2], 0.0)


def of_pairs(
    snapshot: Snapshot, collection: Collection, places: dict[str, tuple[str, str]], ignored: list[str], least: float
) -> dict[str, Any]:
    """`offset`: the share of right segments whose times differ by what was cut, to within half a clip."""
    names = {video_id: name for video_id, (name, _) in places.items()}
    found = duplicates(snapshot, collection, least=least, by="segment", k=1_000_000)
    pairs: dict[tuple[str, str], str] = {}
    n_segments = n_right_offset = 0
    for row in found.rows:
        a, b = sorted((names[row.a.video_id], names[row.b.video_id]))
        if a == b or (family(a) != family(b) and {family(a), family(b)} & set(ignored)):
            continue
        pairs[a, b] = row.kind
        if family(a) == family(b):
            n_segments += 1
            shift_s = cut_s(names[row.a.video_id]) - cut_s(names[row.b.video_id])
            n_right_offset += abs(row.b.start_s - row.a.start_s - shift_s) <= 5.01
    right = {pair for pair in pairs if family(pair[0]) == family(pair[1])}
    whole = {pair for pair, kind in pairs.items() if kind != "segment"}
    folders = {name: folder for name, folder in places.values() if "--" not in name}
    known = [(family(name), name) for name in names.values() if "--" in name]
    return {
        "threshold": least,
        "pairs": len(pairs),
        "precision": ratio(len(right), len(pairs)),
        "wrong": len(pairs) - len(right),
        "of those of one folder": sum(folders[family(a)] == folders[family(b)] for a, b in pairs.keys() - right),
        "recall": ratio(len(right & set(known)), len(known)),
        "recall as whole ones": ratio(len(whole & set(known)), len(known)),
        "offset": ratio(n_right_offset, n_segments),
        "hubs": found.n_hubs,
    }


def of_joined(store: Store, segments: Path) -> list[dict[str, Any]]:
    """Segments found between the joined film and originals; right is one that overlaps the time of its source."""
    with open(segments, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    joined, truth = Path(rows[0]["path"]).name, {Path(row["source_clip"]).name: row for row in rows}
    snapshot, figures = Snapshot(store), []
    collection = open_collection(snapshot, settled_space(store, None))
    for least in THRESHOLDS:
        right, n_found = set(), 0
        for row in duplicates(snapshot, collection, least=least, by="segment", k=1_000_000).rows:
            sides = {Path(side.path).name: side for side in (row.a, row.b)}
            others = sides.keys() - {joined}
            if len(sides) != 2 or joined not in sides or "--" in (other := others.pop()):
                continue
            n_found += 1
            true, found = truth.get(other), sides[joined]
            if true and found.start_s < float(true["end_s"]) and float(true["start_s"]) < found.end_s:
                right.add(other)
        long = {name for name, row in truth.items() if float(row["end_s"]) - float(row["start_s"]) >= HALF_CLIP_S}
        figures.append(
            {
                "threshold": least,
                "segments": n_found,
                "precision": ratio(len(right), n_found),
                f"recall of {len(long)} of 5 s or more": ratio(len(right & long), len(long)),
                "recall of shorter ones": ratio(len(right - long), len(truth) - len(long)),
            }
        )
    return figures


def ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 3) if whole else None


def of_kinds(collection: Collection, videos: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Cosines of each clip of a copy and the clip of the original that it shares most time with."""
    for kind in KINDS:
        cosines = []
        for name, video in videos.items():
            if name.endswith(f"--{kind}"):
                copy, original = collection.of_video(video), collection.of_video(videos[family(name)])
                middles = copy.times_s.mean(axis=1) + cut_s(name)
                apart = np.abs(original.times_s.mean(axis=1)[None] - middles[:, None])
                scores = copy.vectors @ original.vectors.T
                # Two are as near as each other where the cut is half a clip.
                cosines += np.where(apart <= apart.min(axis=1, keepdims=True) + 0.01, scores, -1).max(axis=1).tolist()
        if cosines:
            low, middle, high = np.percentile(cosines, [5, 25, 50])
            yield {"kind": kind, "clips": len(cosines), "5 %": low, "25 %": middle, "50 %": high}


def of_unrelated(collection: Collection, videos: dict[str, int], ignored: list[str]) -> dict[str, Any]:
    """Cosines of clips of different originals."""
    originals = [name for name in videos if "--" not in name and name not in ignored]
    clips = {name: collection.of_video(videos[name]).vectors for name in originals}
    cosines = np.concatenate([(clips[a] @ clips[b].T).ravel() for a, b in combinations(originals, 2)])
    shares = {f"from {least}": float((cosines >= least).mean()) for least in THRESHOLDS}
    return {"pairs of clips": len(cosines), "50 %": float(np.median(cosines)), **shares}


def main() -> None:
    """Print the tables, or one JSON object with --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--encoder", default="conse")
    parser.add_argument("--leave-out", nargs="*", default=[], help="originals that are not copied, as joined*")
    parser.add_argument(
        "--ignore", nargs="*", default=[], help="originals, without suffix, that share scenes with others"
    )
    parser.add_argument(
        "--segments", type=Path, help="CSV of path, start_s, end_s, source_clip: a film joined of others"
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    copies, store = arguments.work / "copies", arguments.work / "store"
    copies.mkdir(parents=True, exist_ok=True)
    make_copies(arguments.folder, copies, arguments.leave_out)
    for folder in (arguments.folder, copies):
        index = ["index", folder, "--store", store, "--encoder", arguments.encoder]
        subprocess.run([Path(sys.executable).with_name("vidx"), *index], check=True, stdout=sys.stderr)
    measured = measure(Store.open(store), arguments.ignore)
    if arguments.segments:
        measured["originals in the joined film, by threshold"] = of_joined(Store.open(store), arguments.segments)
    if arguments.json:
        print(json.dumps(measured))
        return
    for title, rows in measured.items():
        print(f"\n{title}")
        for row in rows:
            cells = (
                f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}" for key, value in row.items()
            )
            print("  " + "  ".join(cells))


if __name__ == "__main__":
    main()
