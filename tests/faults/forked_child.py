"""Decode processes that are forked from the run instead of started anew: that spares a short run most of its time.

They run the same code on the same pipes, and hold no other file of the run open. They have no limit of memory of their
own, since they begin with all that the run has mapped.
"""

from __future__ import annotations

import contextlib
import os
import resource
import runpy
import signal
import subprocess
import sys
import time
import traceback
from itertools import pairwise
from typing import Any

_CHILD = "vidx.indexer.child"
_started = subprocess.Popen


def popen(command: list[str], **options: Any) -> Any:
    """In place of subprocess.Popen: forks decode processes, and starts everything else."""
    if _CHILD in command:
        return _Forked(command[command.index(_CHILD) :], options)
    return _started(command, **options)


class _Forked:
    """The part of subprocess.Popen that a run needs of a decode process."""

    def __init__(self, arguments: list[str], options: dict[str, Any]) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.dup2(options["stderr"] if isinstance(options["stderr"], int) else options["stderr"].fileno(), 2)
                _close_all_but(options["pass_fds"])
                sys.argv = arguments
                del sys.modules[_CHILD]  # it runs as __main__
                resource.setrlimit = lambda *_: None  # type: ignore[assignment]
                runpy.run_module(_CHILD, run_name="__main__")
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def poll(self) -> int | None:
        if self.returncode is None:
            with contextlib.suppress(ChildProcessError):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        end = time.monotonic() + (60 if timeout is None else timeout)
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(_CHILD, timeout or 60)
            time.sleep(0.002)
        assert self.returncode is not None
        return self.returncode


def _close_all_but(kept: tuple[int, ...]) -> None:
    """As Popen does with all but the standard streams: a child must not keep the lock of the store beyond its run."""
    for below, above in pairwise(sorted({2, *kept, os.sysconf("SC_OPEN_MAX")})):
        os.closerange(below + 1, above)
