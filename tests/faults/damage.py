"""Ways to damage a store on disk, each of which can be taken back."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

TABLES = ("files", "videos", "indexed", "thumbnails", "runs", "clips")


def table_folder(store: Path, table: str) -> Path:
    """Folder of a table; of `clips` that of its only space."""
    if table != "clips":
        return store / table
    (folder,) = (store / "clips").iterdir()
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _noise(n: int) -> bytes:
    return random.Random(0).randbytes(n)


def _newest_commit(folder: Path) -> Path:
    return sorted((folder / "_delta_log").glob("*.json"))[-1]


def _cut_log(folder: Path) -> None:
    commit = _newest_commit(folder)
    commit.write_bytes(commit.read_bytes()[: commit.stat().st_size // 2])


def _cut_log_at_a_line(folder: Path) -> None:
    commit = _newest_commit(folder)
    commit.write_bytes(commit.read_bytes().splitlines(keepends=True)[0])


def _empty_log(folder: Path) -> None:
    _newest_commit(folder).write_bytes(b"")


def _garble_log(folder: Path) -> None:
    commit = _newest_commit(folder)
    commit.write_bytes(_noise(commit.stat().st_size))


def _gap_in_log(folder: Path) -> None:
    sorted((folder / "_delta_log").glob("*.json"))[1].unlink()


def _no_log(folder: Path) -> None:
    shutil.rmtree(folder / "_delta_log")


def _no_table(folder: Path) -> None:
    shutil.rmtree(folder)


LOG_DAMAGE: dict[str, Callable[[Path], None]] = {
    "cut": _cut_log,
    "cut at a line": _cut_log_at_a_line,
    "emptied": _empty_log,
    "garbled": _garble_log,
    "gap": _gap_in_log,
    "no log": _no_log,
    "no table": _no_table,
}


def _no_data(folder: Path) -> None:
    for file in folder.glob("*.parquet"):
        file.unlink()


def _garble_data(folder: Path) -> None:
    for file in folder.glob("*.parquet"):
        file.write_bytes(_noise(file.stat().st_size))


def _cut_data(folder: Path) -> None:
    for file in folder.glob("*.parquet"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _empty_data(folder: Path) -> None:
    for file in folder.glob("*.parquet"):
        file.write_bytes(b"")


DATA_DAMAGE: dict[str, Callable[[Path], None]] = {
    "gone": _no_data,
    "garbled": _garble_data,
    "cut": _cut_data,
    "emptied": _empty_data,
}


@contextmanager
def damaged(folder: Path, how: Callable[[Path], None], aside: Path) -> Iterator[None]:
    """Damage a table for a while; `aside` is where the good one is kept."""
    shutil.copytree(folder, aside)
    try:
        how(folder)
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(aside, folder)
        shutil.rmtree(aside)
