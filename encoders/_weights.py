"""Weights as data files: where they lie, and by sha256 which ones they are. Nothing here reads what is in them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vidx.encoders._spec import EncoderSpec, WeightsFile
from vidx.errors import InputError, WeightsAltered, WeightsMissing
from vidx.schema.files import write_atomically

_KNOWN = "known.json"  # sha256 to path, size and time of change of files that were seen


def weights_folder() -> Path:
    """Where fetched files are kept: VIDX_WEIGHTS, else the user's data folder."""
    if named := os.environ.get("VIDX_WEIGHTS"):
        return Path(named)
    from platformdirs import user_data_path

    return user_data_path("vidx") / "weights"


def in_package(package: str, relative: str, *, sha256: str, size_bytes: int, source: str) -> WeightsFile:
    """A file inside an installed package, which need not be importable."""
    found = find_spec(package)
    path = Path(found.origin).parent / relative if found and found.origin else None
    return WeightsFile(source, sha256, size_bytes, path if path and path.exists() else None)


def checked(file: WeightsFile, encoder: str) -> Path:
    """The path of a weights file that is what it should be. Raises WeightsMissing or WeightsAltered."""
    if file.path is not None and not file.path.exists():
        file = replace(file, path=None)
    path = located(file, encoder)
    digest = _sha256(path)
    if digest != file.sha256:
        raise _altered(file, digest)
    return path


def located(file: WeightsFile, encoder: str) -> Path:
    """The path of a weights file. Raises WeightsMissing, which says which file it was if one was used before."""
    if (path := file.found()) is None:
        seen = _known().get(file.sha256 or "")
        which = f" (last at {seen['path']}, sha256 {file.sha256})" if seen else ""
        raise WeightsMissing(f"the weights of encoder {encoder} are not on this machine{which}", hint=file.source)
    return path


def damaged_hint(path: Path) -> str:
    """What to do about a file of weights that can't be read."""
    if path.is_relative_to(weights_folder()):  # where `vidx encoders fetch` finds it and fetches nothing
        return "remove it, then run `vidx encoders fetch NAME` again"
    return "fetch it again, from its authors"


def resolved(spec: EncoderSpec, given: Sequence[Path] = (), digests: dict[str, str] | None = None) -> EncoderSpec:
    """The spec with every file's path and digest, and both in its space.

    `given` are files brought by hand, in the order of `spec.weights`; `digests`, by role, are those of a space that was
    made before, wherever its files lie now, if anywhere. Raises InputError, WeightsMissing, WeightsAltered.
    """
    roles = [file.role for file in spec.weights if file.role]  # others its encoder checks, and takes no other for them
    if given and not roles:
        raise InputError(
            f"encoder {spec.name} takes no weights of yours",
            hint="leave out --weights, or name the --encoder they are of",
        )
    if len(given) > len(roles):
        raise InputError(
            f"encoder {spec.name} takes {len(roles)} weights files, not {len(given)}", hint=f"give: {', '.join(roles)}"
        )
    files = []
    for number, file in enumerate(spec.weights):
        if number < len(given):
            files.append(_given(file, given[number]))
        else:
            files.append(_located(file, spec.name, (digests or {}).get(file.role)))
    own = {file.role: file.sha256 for file in files if file.role and file.sha256}
    return replace(spec, weights=tuple(files), space=replace(spec.space, weights={**spec.space.weights, **own}))


def digest_of(path: Path) -> str:
    """The sha256 of a file; one that was seen before, and is as large and as old as then, is not read again.

    Raises WeightsMissing.
    """
    try:
        facts = path.stat()
        for digest, seen in _known().items():
            if seen == _seen(path, facts):
                return digest
        digest = _sha256(path)
    except OSError as error:
        raise WeightsMissing(f"{path} can't be read: {error.strerror}", hint="check the path") from error
    remember(path, digest)
    return digest


def remember(path: Path, digest: str) -> None:
    """Keep in mind where the file of a digest lies, where that can be written."""
    known = {**_known(), digest: _seen(path, path.stat())}
    with suppress(OSError):
        weights_folder().mkdir(parents=True, exist_ok=True)
        write_atomically(weights_folder() / _KNOWN, json.dumps(known, indent=1).encode())


def _given(file: WeightsFile, path: Path) -> WeightsFile:
    if not path.is_file():
        raise InputError(f"--weights: no file {str(path)!r}", hint="check the path")
    path = path.absolute()
    return replace(file, path=path, sha256=digest_of(path), size_bytes=path.stat().st_size)


def _located(file: WeightsFile, encoder: str, digest: str | None) -> WeightsFile:
    if digest is not None:
        return replace(file, path=place_of(digest, file.found()), sha256=digest, place=None)
    path = located(file, encoder)
    if not file.role:  # one that its encoder checks when it loads it
        return file
    found = digest_of(path)
    if file.sha256 and found != file.sha256:
        raise _altered(replace(file, path=path), found)
    return replace(file, path=path, sha256=found)


def place_of(digest: str, *others: Path | None) -> Path | None:
    """Where a file of that digest lies now, if it is known or one of the others."""
    seen = _known().get(digest)
    places = [Path(seen["path"]) if seen else None, *others]
    return next((path for path in places if path and path.is_file() and digest_of(path) == digest), None)


def _altered(file: WeightsFile, found: str) -> WeightsAltered:
    was_fetched = file.path is not None and file.path.is_relative_to(weights_folder())
    return WeightsAltered(
        f"{file.path} is not the file it should be (sha256 {found[:12]}, not {(file.sha256 or '')[:12]})",
        hint=f"it is damaged or was altered; {'remove it, then' if was_fetched else 'put it back:'} {file.source}",
    )


def _known() -> dict[str, Any]:
    with suppress(OSError, ValueError):
        known = json.loads((weights_folder() / _KNOWN).read_text(encoding="utf-8"))
        return known if isinstance(known, dict) else {}
    return {}


def _seen(path: Path, facts: os.stat_result) -> dict[str, Any]:
    return {"path": str(path.absolute()), "size_bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns}


def _sha256(path: Path) -> str:
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
