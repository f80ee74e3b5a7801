"""Weights as data files: found without importing the package they lie in, checked by sha256 before use."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from vidx.encoders import WeightsFile
from vidx.errors import WeightsAltered, WeightsMissing


def in_package(package: str, relative: str, *, sha256: str, size_bytes: int, source: str) -> WeightsFile:
    """A file inside an installed package, which need not be importable."""
    found = find_spec(package)
    path = Path(found.origin).parent / relative if found and found.origin else None
    return WeightsFile(source, sha256, size_bytes, path if path and path.exists() else None)


def checked(file: WeightsFile, encoder: str) -> Path:
    """The path of a weights file that is what it should be. Raises WeightsMissing or WeightsAltered."""
    if file.path is None or not file.path.exists():
        raise WeightsMissing(f"the weights of encoder {encoder} are not on this machine", hint=file.source)
    with open(file.path, "rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != file.sha256:
        raise WeightsAltered(
            f"{file.path} is not the file it should be (sha256 {digest[:12]}, not {file.sha256[:12]})",
            hint=f"it is damaged or was altered; put it back: {file.source}",
        )
    return file.path
