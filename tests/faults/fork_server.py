"""Runs `vidx` commands in forks of a process that has imported everything, with a fault in each if asked for.

Started as `python -m vidx.tests.faults.fork_server`. One JSON object a line: a request on standard input, see
`ForkServer.run`, and the answer on standard output. The server itself never calls into a library that starts threads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from vidx.tests.faults import forked_child, primitives
from vidx.tests.faults.often import commit_every, without_pandas
from vidx.tests.faults.primitives import Fault

_PRELOADED = (
    "av",
    "duckdb",
    "numpy.ma",  # which DuckDB loads to look at an Arrow table
    "vidx.cli",
    "vidx.console",
    "vidx.decoders.pyav",
    "vidx.indexer.child",
    "vidx.indexer.run",
    "vidx.schema.snapshot",
    "vidx.search.run",
    "vidx.search.status",
    "vidx.vectors.flat",
    "tiny_encoder",
)


@dataclass(frozen=True)
class Finished:
    """A command that has ended; `calls` are the names of its writes in order, `code` is -9 if it was killed."""

    code: int
    printed: str
    errors: str
    calls: list[str]


class ForkServer:
    """The client's side. Not for several threads at once; a second server costs a second."""

    def __init__(self) -> None:
        from vidx.tests.faults.commands import environment

        self._process = subprocess.Popen(
            [sys.executable, "-m", "vidx.tests.faults.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
        )

    def run(self, command: list[str], *, commit_s: float | None = None, fault: Fault | None = None) -> Finished:
        """Run a `vidx` command (its first word is left out) that commits every `commit_s` seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"arguments": command[1:], "commit_s": commit_s, "fault": fault and asdict(fault)}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Finished(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the server."""
        self._process.communicate(timeout=60)


def serve() -> None:
    """Answer requests until standard input ends."""
    primitives.wrap()
    without_pandas()
    for name in _PRELOADED:
        __import__(name)
    plugins = metadata.entry_points()
    metadata.entry_points = plugins.select  # type: ignore[assignment]  # every command would read them anew
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(_answer(json.loads(line), Path(folder))), flush=True)


def _answer(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    pid = os.fork()
    if pid == 0:
        _run(request, folder)
    _, status = os.waitpid(pid, 0)
    read = {name: (folder / name).read_text("utf-8", "backslashreplace") for name in ("printed", "errors", "calls")}
    return {**read, "code": os.waitstatus_to_exitcode(status), "calls": read["calls"].split()}


def _run(request: dict[str, Any], folder: Path) -> None:
    """The forked process: it becomes the command and doesn't return."""
    for number, name in ((1, "printed"), (2, "errors")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    code: Any = 1
    try:
        from vidx import cli

        subprocess.Popen = forked_child.popen  # type: ignore[assignment,misc]
        if request["commit_s"] is not None:
            commit_every(request["commit_s"])
        primitives.arm(request["fault"] and Fault(**request["fault"]), str(folder / "calls"))
        sys.argv = ["vidx", *request["arguments"]]
        cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
