"""What indexing makes of a folder of odd and broken files, judged by what its MANIFEST.csv says of each.

    python benchmarks/odd_videos.py FOLDER [--encoder conse] [--decoder pyav] [--decode exact]

Indexes FOLDER into a store that is thrown away and prints a Markdown table. Exit code 1 if any verdict is wrong.

MANIFEST.csv has columns `path` (below FOLDER), `what_is_odd`, `correct_behaviour`, `class`, `ffprobe_frames`,
`first_time_s` and `last_time_s`. Classes: `index` (a good file, to be indexed whole), `partial` (damaged: use what
decodes or say why not), `reject` (nothing to index), `either` (any documented rule).
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store

ROUNDING_S = 0.5
SHORT = 48  # characters of a cell


@dataclass(frozen=True)
class Outcome:
    """How a file ended: `state` is that of its content, `skipped` for a file that was passed over, or `unaccounted`."""

    state: str
    reason: str | None = None
    first_bad_s: float | None = None
    clips: int = 0
    span_s: float = 0.0  # from the start of its first clip to the end of its last


def main() -> None:
    """Print the table and exit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder", default="conse")
    parser.add_argument("--decoder", default="pyav")
    parser.add_argument("--decode", default="exact", help="exact, fast or keyframes")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    with open(folder / "MANIFEST.csv", newline="", encoding="utf-8") as file:
        manifest = list(csv.DictReader(file))
    with tempfile.TemporaryDirectory() as scratch:
        how = ["--encoder", arguments.encoder, "--decoder", arguments.decoder, "--decode", arguments.decode]
        outcomes = index(folder, Path(scratch) / "store", how)
    verdicts = []
    print("| file | what is odd | class | state | clips | first bad s | reason | verdict |")
    print("|---|---|---|---|---|---|---|---|")
    for row in manifest:
        outcome = outcomes.get(row["path"], Outcome("unaccounted"))
        verdicts.append(complaint(row, outcome))
        bad_s = "" if outcome.first_bad_s is None else f"{outcome.first_bad_s:.2f}"
        verdict = f"WRONG: {verdicts[-1]}" if verdicts[-1] else "right"
        cells = [row["path"], short(row["what_is_odd"]), row["class"], outcome.state, str(outcome.clips), bad_s]
        print("| " + " | ".join([*cells, short(outcome.reason or ""), verdict]) + " |")
    wrong = sum(map(bool, verdicts))
    print(f"\n{len(verdicts)} files, {wrong} wrong")
    sys.exit(1 if wrong else 0)


def index(folder: Path, store_path: Path, how: list[str]) -> dict[str, Outcome]:
    """Index the folder and return what became of each file, by its path below it; `how` are options."""
    vidx = str(Path(sys.executable).with_name("vidx"))
    command = [vidx, "index", str(folder), "--store", str(store_path), *how, "--json"]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    events = [event for event in map(json.loads, printed.splitlines()) if event["event"] == "file"]
    outcomes = {event["path"]: Outcome(event["state"], event["reason"]) for event in events}
    outcomes |= stored(Store.open(store_path))
    return {str(Path(path).relative_to(folder)): outcome for path, outcome in outcomes.items()}


def stored(store: Store) -> dict[str, Outcome]:
    """Outcomes by path, of the files whose content has one."""
    snapshot = Snapshot(store)
    (space,) = store.spaces()
    rows = snapshot.rows(
        "SELECT f.path, any_value(n.state), any_value(n.reason), any_value(n.first_bad_s), count(c.clip_id),"
        " coalesce(max(c.end_s) - min(c.start_s), 0) FROM files f JOIN newest n USING (video_id)"
        f" LEFT JOIN {snapshot.clips(space)} c USING (video_id) GROUP BY f.path"
    )
    return {path: Outcome(*facts) for path, *facts in rows}


def complaint(row: dict[str, str], outcome: Outcome) -> str:
    """What is wrong with an outcome; empty for nothing."""
    if outcome.state == "unaccounted":
        return "in no account"
    if outcome.state != "ok" and not outcome.reason:
        return "no reason given"
    if outcome.state in ("ok", "partial") and not outcome.clips:
        return "no clips"
    match row["class"]:
        case "index":
            return "not indexed whole" if outcome.state != "ok" else wrong_span(row, outcome)
        case "partial":
            # Damage that decoders pass over without a word is not to be seen; a missing part is.
            return (
                "the missing part is not told"
                if outcome.state == "ok" and "incomplete" in row["correct_behaviour"]
                else ""
            )
        case "reject":
            return "nothing in it should count" if outcome.state in ("ok", "partial") else ""
    return ""


def wrong_span(row: dict[str, str], outcome: Outcome) -> str:
    """Whether the clips cover the time that the frames of a good file do: to half a second and two frames."""
    shown_s = float(row["last_time_s"]) - float(row["first_time_s"])
    frame_s = shown_s / max(1, int(row["ffprobe_frames"]) - 1)
    if abs(outcome.span_s - shown_s) <= ROUNDING_S + 2 * frame_s:
        return ""
    return f"clips cover {outcome.span_s:.1f} of {shown_s:.1f} s"


def short(text: str) -> str:
    """A cell of the table."""
    text = " ".join(text.replace("|", "/").split())
    return text if len(text) <= SHORT else text[: SHORT - 1] + "…"


if __name__ == "__main__":
    main()
