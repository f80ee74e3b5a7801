"""The write lock of a store: the operating system's, which dies with its process, and a note for people beside it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from filelock import FileLock, Timeout

from vidx.errors import StoreError, StoreLocked
from vidx.schema.files import write_atomically
from vidx.schema.store import Store


@contextmanager
def locked(store: Store, *, break_lock: bool = False) -> Iterator[None]:
    """Hold the lock. Raises StoreLocked, naming the holder, or StoreError where the store can't be written.

    The lock of a process that died is taken over. One that another host left is not, for the lock of the operating
    system may not reach that far; `break_lock` says that the user has looked.
    """
    lock = FileLock(store.path / "lock")
    note = store.path / "lock.json"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreLocked(
            f"the store at {store.path} is being written by {_named(_holder(store))}", hint="wait for it to end"
        ) from None
    except OSError as error:
        raise _refused(store, error) from error
    try:
        holder = _holder(store)
        if holder is not None and holder["host"] != socket.gethostname() and not break_lock:
            raise StoreLocked(
                f"the store at {store.path} may be being written by {_named(holder)}",
                hint="if that process is gone, `vidx index --break-lock` takes the lock over",
            )
        try:
            write_atomically(note, json.dumps(_ourselves()).encode())
        except OSError as error:
            raise _refused(store, error) from error
        try:
            yield
        finally:
            _remove(note)
    finally:
        lock.release()


def _ourselves() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "started_at": datetime.now(UTC).isoformat()}


def _holder(store: Store) -> dict[str, Any] | None:
    """What the holder noted of itself; None where there is no readable note."""
    try:
        holder = json.loads((store.path / "lock.json").read_text())
        return {name: holder[name] for name in ("host", "pid", "started_at")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _named(holder: dict[str, Any] | None) -> str:
    if holder is None:
        return "another process"
    return f"process {holder['pid']} on {holder['host']}, started {str(holder['started_at'])[:19]}"


def _remove(note: os.PathLike[str]) -> None:
    """A note that stays behind does no harm, and must not hide the error that ended the run."""
    try:
        os.unlink(note)
    except OSError:
        return


def _refused(store: Store, error: OSError) -> StoreError:
    return StoreError(f"can't write to the store at {store.path}: {error.strerror}", hint="name another with --store")
