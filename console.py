"""What a command shows on a terminal: progress and events of an index run."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from vidx.config import IndexOptions
from vidx.export import shown
from vidx.indexer.commit import FileDone
from vidx.indexer.run import Done
from vidx.indexer.walk import count_files

_REFRESH_S = 0.1
_LINES = 1000


def print_events(events: Iterable[FileDone | Done], _root: Path, _options: IndexOptions) -> dict[str, int]:
    """One JSON object a line on standard output; returns the account."""
    lines: list[str] = []
    try:
        for event in events:
            if isinstance(event, Done):
                counts = event.counts
                line: dict[str, Any] = {"event": "done", **counts, "seconds": event.seconds}
            else:
                line = {"event": "file", **vars(event), "hours": round(event.hours, 6)}
            lines.append(json.dumps(line) + "\n")
            # Nobody waits for unchanged files, they are many, and each write has to wait for the threads that decode.
            if line.get("state") != "unchanged" or len(lines) == _LINES:
                text, lines = "".join(lines), []
                sys.stdout.write(text)  # all in one: an interrupt leaves whole lines, each once
                sys.stdout.flush()
    finally:
        sys.stdout.writelines(lines)
        sys.stdout.flush()
    return counts


def show_progress(events: Iterable[FileDone | Done], root: Path, options: IndexOptions) -> dict[str, int]:
    """A bar on standard error while it runs, troubles as they come, the account at the end on standard output.

    Returns the account.
    """
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    hours, failed, passed, shown_s = 0.0, 0, 0, 0.0
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        total = count_files(root, options) if console.is_terminal else None
        task = bar.add_task("indexing", total=total, rate="")
        for event in events:
            if isinstance(event, Done):
                done = event
                continue
            hours += event.hours
            passed += event.state not in ("skipped", "missing")
            if event.state in ("failed", "partial"):
                failed += event.state == "failed"
                console.print(f"{event.state}: {shown(event.path)}: {event.reason}")
            if time.monotonic() - shown_s < _REFRESH_S:  # a bar costs as much as a file that has not changed
                continue
            shown_s, elapsed_h = time.monotonic(), (bar.tasks[0].elapsed or 0) / 3600
            rate = f"{hours:.2f} h of video, {hours / elapsed_h:.1f} h/h, {failed} failed" if elapsed_h else ""
            bar.update(task, completed=passed, rate=rate)
    counts = done.counts
    if counts["missing"] and not counts["files"]:
        console.print(f"{shown(str(root))} is not there or empty; its files are marked missing and stay searchable")
    parts = ", ".join(
        f"{counts[state]} {state.replace('_', ' ')}" for state in counts if state not in ("files", "clips")
    )
    click.echo(f"{counts['files']} files: {parts}; {counts['clips']} new clips in {done.seconds:.1f} s")
    return counts
