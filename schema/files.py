"""Small files: those of a user read whole, those of the store written so that a power cut never leaves half of one."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from vidx.errors import InputError


def read_text(path: Path) -> str:
    """The text of a file in UTF-8. Raises InputError."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text in UTF-8", hint="save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror}", hint="name another file") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside `path`, make it durable, then rename over it and make the rename durable."""
    aside = path.with_name(path.name + ".new")
    with open(aside, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def make_durable(folder: Path) -> None:
    """Have everything written below a folder reach the disk; Delta itself leaves that to the operating system."""
    if sys.platform != "linux":
        os.sync()
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(opened) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
    finally:
        os.close(opened)
