"""Labels taught by examples: linear rules over the vectors of one space, a file each in STORE/heads/SPACE.

Applying one needs NumPy alone; `vidx.learn` makes them.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidx.errors import InputError, StoreDamaged, StoreError
from vidx.schema.files import write_atomically
from vidx.schema.store import Store

VERSION = 1


@dataclass(frozen=True, eq=False)
class Head:
    """A label as a logistic rule: probability = sigmoid(vector . weights + bias), given from `threshold` on.

    `weights` float32 (dim,), finite and not all 0. Raises ValueError for anything else. Heads that are the same have
    the same `digest`.
    """

    label: str
    space: str  # name of the space whose vectors it takes
    method: str  # how it was fitted: logistic | prototype
    weights: np.ndarray
    bias: float
    threshold: float  # probability
    n_positive: int  # clips it was taught by
    n_negative: int
    seed: int

    def __post_init__(self) -> None:
        finite = np.isfinite(self.weights).all() and np.isfinite(self.bias)
        if self.weights.dtype != np.float32 or self.weights.ndim != 1 or not finite or not self.weights.any():
            raise ValueError("the weights of a head are finite, float32, and not all 0")
        if not 0 <= self.threshold <= 1:
            raise ValueError("the threshold of a head is a probability")

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON, 64 hex digits."""
        return hashlib.sha256(_canonical(_fields(self)).encode()).hexdigest()

    @property
    def direction(self) -> np.ndarray:
        """float32 (dim,), unit norm: to search with; cosines with it order clips as the probabilities do."""
        wide = self.weights.astype(np.float64)
        scaled: np.ndarray = (wide / np.linalg.norm(wide)).astype(np.float32)
        return scaled

    def probabilities(self, vectors: np.ndarray) -> np.ndarray:
        """Of unit vectors float32 (n, dim): float32 (n,)."""
        return logistic(vectors, self.weights, self.bias)


def logistic(vectors: np.ndarray, weights: np.ndarray, bias: float) -> np.ndarray:
    """sigmoid(vectors @ weights + bias), float32 (n,); far from 0 it is 0 or 1 without a warning."""
    probabilities: np.ndarray = (0.5 + 0.5 * np.tanh((vectors @ weights + np.float32(bias)) / 2)).astype(np.float32)
    return probabilities


def write_head(store: Store, head: Head) -> Path:
    """Put a head into the store, in place of an older one of its label and space; the file it is in.

    Whoever reads meanwhile gets the old one or the new one. Raises StoreError where the store can't be written.
    """
    from filelock import FileLock

    folder = store.path / "heads" / head.space
    path = folder / _file_name(head.label)
    data = json.dumps({"version": VERSION, "sha256": head.digest, "head": _fields(head)}, indent=1)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):  # two writers of one label would write to one file beside it
            write_atomically(path, data.encode())
    except OSError as error:
        raise StoreError(
            f"can't write to the store at {store.path}: {error.strerror}", hint="name another with --store"
        ) from error
    return path


def read_head(store: Store, space: str, label: str) -> Head:
    """The head of a label. Raises InputError, naming those there are, or StoreDamaged for a file that was altered."""
    path = store.path / "heads" / space / _file_name(label)
    if not path.exists():
        known = ", ".join(taught(store, space))
        raise InputError(
            f"no label {label!r} was taught in {space}",
            hint=f"taught there: {known}" if known else "`vidx teach LABEL --from hits.json` does it",
        )
    head = _read(path)
    if (head.space, head.label) != (space, label):
        raise _damaged(path, f"it is of {head.label!r} in {head.space}")
    return head


def taught(store: Store, space: str) -> list[str]:
    """The labels taught in a space, sorted. Raises StoreDamaged."""
    return sorted(_read(path).label for path in (store.path / "heads" / space).glob("*.json"))


def _read(path: Path) -> Head:
    try:
        stored = json.loads(path.read_text(encoding="ascii"))
        if stored["version"] > VERSION:
            raise ValueError(f"a newer vidx wrote it, version {stored['version']}")
        fields: dict[str, Any] = stored["head"]
        head = Head(**{**fields, "weights": np.array(fields["weights"], np.float32)})
        if _canonical(fields) != _canonical(_fields(head)) or head.digest != stored["sha256"]:
            raise ValueError("it was altered")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    return head


def _damaged(path: Path, what: str) -> StoreDamaged:
    return StoreDamaged(
        f"the taught label in {path} can't be read: {what}", hint="remove the file and teach the label again"
    )


def _fields(head: Head) -> dict[str, Any]:
    """What JSON holds of a head; a float32 comes back from its decimal digits as it was."""
    return asdict(head) | {"weights": head.weights.tolist()}


def _canonical(fields: dict[str, Any]) -> str:
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


def _file_name(label: str) -> str:
    """Safe on any file system, and of this label alone: for people its letters, for certainty its digest."""
    safe = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")[:40]
    return f"{safe}-{hashlib.sha256(label.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}.json"
