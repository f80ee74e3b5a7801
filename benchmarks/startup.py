"""How long vidx takes to start: help, bare import, a cold search, a run with nothing to do, beside a bare interpreter.

    python benchmarks/startup.py STORE FOLDER [--runs 9] [--json]

STORE must hold FOLDER, indexed. Every figure is the wall time of a whole process, taken in turn; medians, and ratios
to an interpreter that does nothing, which compare between machines.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    """Print the table, or one JSON object with --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    vidx, store = str(Path(sys.executable).with_name("vidx")), ["--store", str(arguments.store)]
    commands = {
        "interpreter": [sys.executable, "-c", "pass"],
        "import_vidx": [sys.executable, "-c", "import vidx"],
        "help": [vidx, "--help"],
        "status": [vidx, "status", *store],
        "search": [vidx, "search", "a person climbing stairs", *store],
        "index_unchanged": [vidx, "index", str(arguments.folder), *store],
    }
    times_s: dict[str, list[float]] = {name: [] for name in commands}
    for run in range(arguments.runs + 1):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            if run > 0:  # the first round fills the file cache
                times_s[name].append(time.perf_counter() - began)
    medians_s = {name: statistics.median(taken) for name, taken in times_s.items()}
    if arguments.json:
        print(json.dumps({f"{name}_s": round(median, 3) for name, median in medians_s.items()}))
        return
    for name, median in medians_s.items():
        print(f"{name:<16} {median:6.3f} s  {median / medians_s['interpreter']:5.1f} x interpreter")


if __name__ == "__main__":
    main()
