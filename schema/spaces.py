"""A space is everything that makes two vectors comparable: encoder, weights of both towers, preprocessing, scoring.

Window, stride, decoder, device and precision are not part of it; they are recorded per attempt in `indexed`.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vidx.errors import StoreDamaged
from vidx.schema.files import write_atomically
from vidx.schema.records import Preprocess


@dataclass(frozen=True)
class Space:
    """One vector space; its canonical JSON decides its name."""

    encoder: str
    weights: dict[str, str]  # tower to sha256
    preprocess: Preprocess
    frames: int
    pooling: str
    dim: int
    logit_scale: float | None = None
    test_scale: float | None = None
    prompts: list[str] = field(default_factory=list)
    normalise: str | None = None  # mean and deviation of colours: clip, imagenet or unit; None: the encoder's own

    def canonical_json(self) -> str:
        fields = asdict(self)
        if self.normalise is None:  # as spaces were named before there was a choice
            del fields["normalise"]
        if self.preprocess.crops == 1:  # likewise
            del fields["preprocess"]["crops"]
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @property
    def name(self) -> str:
        """Encoder name made safe for a folder, and 8 hex digits of the sha256 of the canonical JSON."""
        safe = re.sub(r"[^a-z0-9]+", "-", self.encoder.lower()).strip("-")
        return f"{safe}-{hashlib.sha256(self.canonical_json().encode()).hexdigest()[:8]}"

    @property
    def weights_digest(self) -> str:
        """One digest over the weights of all towers, in the order of their names."""
        joined = ",".join(f"{tower}:{digest}" for tower, digest in sorted(self.weights.items()))
        return hashlib.sha256(joined.encode()).hexdigest()


def write_space(folder: Path, space: Space) -> None:
    path = folder / f"{space.name}.json"
    if not path.exists():
        write_atomically(path, space.canonical_json().encode())


def read_space(folder: Path, name: str) -> Space:
    """Raises StoreDamaged where the file is missing or is not the space its name says."""
    path = folder / f"{name}.json"
    try:
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        space = Space(**{**fields, "preprocess": Preprocess(**fields["preprocess"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreDamaged(f"{path} can't be read ({error})", hint="restore it from a backup of the store") from error
    if space.name != name:
        raise StoreDamaged(f"{path} was altered: it describes {space.name}", hint="restore it from a backup")
    return space
