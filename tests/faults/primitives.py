"""Counting what a run does to its store, and failing or dying at any one of these steps.

`wrap` replaces the functions through which anything reaches the disk before the modules that use them are imported:
the calls of Delta Lake, and the few of the operating system that vidx makes itself.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_FAULT: Fault | None = None
_LOG: int | None = None
_calls = 0


@dataclass(frozen=True)
class Fault:
    """What happens at the n-th call, counted from 1: `kill` before or after it, or an OSError `error` instead of it."""

    call: int
    kill: str | None = None  # before | after
    error: int | None = None


def arm(fault: Fault | None, log_path: str) -> None:
    """Start counting; the name of each call goes to the log before it is made."""
    global _FAULT, _LOG, _calls
    _FAULT, _calls = fault, 0
    _LOG = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def wrap() -> None:
    """Wrap every primitive. Must come before anything else of vidx is imported."""
    import deltalake
    import deltalake.table
    import deltalake.writer

    assert not any(name.startswith("vidx.schema.") for name in sys.modules)
    for name in ("fsync", "replace", "unlink"):
        setattr(os, name, _counted(name, getattr(os, name)))
    write = _counted("write_deltalake", deltalake.write_deltalake)
    deltalake.write_deltalake = deltalake.writer.write_deltalake = write
    table = deltalake.DeltaTable
    table.create = classmethod(_counted("create", table.create.__func__))  # type: ignore[method-assign]
    for name in ("delete", "update", "vacuum", "create_checkpoint", "cleanup_metadata", "restore"):
        setattr(table, name, _counted(name, getattr(table, name)))
    for owner, name in (
        (deltalake.table.TableMerger, "execute"),
        (deltalake.table.TableOptimizer, "compact"),
        (deltalake.table.TableOptimizer, "z_order"),
    ):
        setattr(owner, name, _counted(name, getattr(owner, name)))

    from vidx.schema import files

    files.make_durable = _counted("make_durable", files.make_durable)


def _counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*arguments: Any, **options: Any) -> Any:
        if _LOG is None:
            return call(*arguments, **options)
        global _calls
        _calls += 1
        os.write(_LOG, name.encode() + b"\n")
        fault = _FAULT if _FAULT is not None and _FAULT.call == _calls else None
        if fault and fault.error:
            raise OSError(fault.error, os.strerror(fault.error))
        if fault and fault.kill == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*arguments, **options)
        if fault and fault.kill == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return counted
