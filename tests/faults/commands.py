"""Running `vidx` with the plug-in encoder as a user does, and ending it as nobody should."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

VIDX = str(Path(sys.executable).with_name("vidx"))
PLUGIN = Path(__file__).parent / "plugin"
COUNTED = ("indexed", "linked", "unchanged", "failed", "partial", "not_video")
_MARK = "VIDX_TEST_MARK"  # in the environment of all processes of one run, so that none is overlooked


def environment(**more: str) -> dict[str, str]:
    """Variables with which every `vidx` finds the encoder `tiny`."""
    path = os.pathsep.join(filter(None, [str(PLUGIN), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **more}


def bound_by_permissions(command: list[str]) -> list[str]:
    """A command as somebody runs it who has to keep to the permissions of files, which root need not; or skips."""
    if os.geteuid() != 0:
        return command
    if shutil.which("setpriv") is None:
        pytest.skip("root may do everything, and there is no setpriv to lay that down")
    rights = "-dac_override,-dac_read_search"
    return ["setpriv", "--bounding-set", rights, "--inh-caps", rights, *command]


@dataclass(frozen=True)
class Run:
    """A finished `vidx index --json`."""

    code: int
    events: list[dict[str, Any]]
    errors: str

    @property
    def done(self) -> dict[str, Any]:
        """The account."""
        assert self.code in (0, 3), self.errors
        assert self.events[-1]["event"] == "done"
        return self.events[-1]

    @property
    def states(self) -> dict[str, str]:
        """State of every entry by its path."""
        return {event["path"]: event["state"] for event in self.events if event["event"] == "file"}

    def named(self, state: str) -> list[str]:
        """Names of the entries in a state, sorted."""
        return sorted(os.path.basename(path) for path, found in self.states.items() if found == state)


def parsed(code: int, printed: str, errors: str) -> Run:
    """The record of a run from what it printed; a last line that was cut off is left out."""
    lines = printed.split("\n")[:-1]
    return Run(code, [json.loads(line) for line in lines], errors)


def index_command(root: Path, store: Path, *arguments: str, workers: int = 2) -> list[str]:
    """`vidx index ROOT` into a store with the plug-in encoder, on so many decode processes whatever the machine has."""
    common = ["--store", str(store), "--encoder", "tiny", "--workers", str(workers), "--json"]
    return [VIDX, "index", str(root), *common, *arguments]


def finished(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """A command that has ended."""
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=300,
        env=environment(**variables),
    )


def index(root: Path, store: Path, *arguments: str, **variables: str) -> Run:
    """`vidx index ROOT --json` to its end, with variables of the environment."""
    run = finished(index_command(root, store, *arguments), **variables)
    return parsed(run.returncode, run.stdout, run.stderr)


def adds_up(done: dict[str, Any]) -> bool:
    """Whether the parts of an account make its whole."""
    return bool(done["files"] == sum(done[state] for state in COUNTED))


def one_line(run: Any, code: int, *words: str) -> None:
    """Check an error: one line on standard error that holds the words, and the exit code.

    `run` is a Run, a Finished or a CompletedProcess.
    """
    what = not_one_line(run, code, *words)
    assert not what, what


def not_one_line(run: Any, code: int, *words: str) -> str:
    """What `one_line` has against a run; empty for nothing."""
    completed = isinstance(run, subprocess.CompletedProcess)
    errors, found = (run.stderr, run.returncode) if completed else (run.errors, run.code)
    shape = errors.startswith("Error: ") and errors.endswith("\n") and errors.count("\n") == 1
    thought_of = not errors.startswith("Error: unexpected ") and "<unknown>" not in errors  # no frames of a stack
    if found == code and shape and thought_of and all(word in errors for word in words):
        return ""
    return f"exit code {found}, on standard error {errors!r}"


class Killed:
    """A command that is killed with SIGKILL some time after so many lines: its first process, or all of its group."""

    def __init__(self, command: list[str], mark: str, **variables: str) -> None:
        self._mark = f"{_MARK}={mark}".encode()
        self._process = subprocess.Popen(
            command,
            env=environment(**{_MARK: mark}, **variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def after(self, lines: int, seconds: float, whole_group: bool) -> None:
        """Kill it so many seconds after it printed so many lines; one that ends before is left to."""
        assert self._process.stdout is not None
        for _ in range(lines):
            self._process.stdout.readline()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        self.now(whole_group)

    def now(self, whole_group: bool = False) -> None:
        """Kill it."""
        assert self._process.stdout is not None
        with contextlib.suppress(ProcessLookupError):
            if whole_group:
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def left_behind(self, patience_s: float = 10.0) -> list[int]:
        """Processes of the run that are still there, after giving them time to notice."""
        end = time.monotonic() + patience_s
        while (left := self._alive()) and time.monotonic() < end:
            time.sleep(0.1)
        return left

    def _alive(self) -> list[int]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self._mark + b"\0" in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
        return found
