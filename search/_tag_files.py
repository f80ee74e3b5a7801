"""Parquet files of tags, queried by a DuckDB that sees nothing else."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections.abc import Iterable
from pathlib import Path

import duckdb

from vidx.errors import InputError

HINT = "name Parquet files that `vidx tag` wrote"
_MEMORY = "2GB"  # more makes it no faster
_MOST_THREADS = 16  # each takes a share of that


def connect(folders: Iterable[Path]) -> duckdb.DuckDBPyConnection:
    """A DuckDB that reads these folders and nothing else, and lays aside on the disk what _MEMORY can't hold."""
    db = duckdb.connect(
        ":memory:",
        config={
            "autoload_known_extensions": "false",
            "autoinstall_known_extensions": "false",
            "python_enable_replacements": "false",
            "memory_limit": _MEMORY,
            "threads": str(min(_MOST_THREADS, os.cpu_count() or 1)),
            "temp_directory": str(Path(tempfile.gettempdir()) / f"vidx-{secrets.token_hex(8)}"),
        },
    )
    allowed = {name for folder in folders for name in (str(folder), _pattern(str(folder)))}
    db.execute(f"SET allowed_directories = [{', '.join(map(quoted, sorted(allowed)))}]")
    db.execute("SET enable_external_access = false")
    db.execute("SET enable_progress_bar = false")
    db.execute("SET preserve_insertion_order = false")  # which costs memory; what needs an order sorts
    db.execute("SET partitioned_write_max_open_files = 1000")  # a label beyond them gets several parts
    db.execute("SET lock_configuration = true")
    return db


def unreadable(file: Path, error: Exception) -> InputError:
    """What to tell of a file that can't be read."""
    why = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
    name = str(file).encode(errors="backslashreplace").decode()
    return InputError(f"can't read {name}: {why}", hint=HINT)


def _pattern(path: str) -> str:
    """A pattern that only this path matches; DuckDB takes every name of a file for one."""
    return re.sub(r"[*?\[]", r"[\g<0>]", path)


def named(file: Path) -> str:
    """SQL of the name of one file, for `read_parquet`."""
    return quoted(_pattern(str(file.absolute())))


def quoted(text: str) -> str:
    """SQL of a text."""
    return "'" + text.replace("'", "''") + "'"
