"""What is known of an encoder without loading it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidx.schema.spaces import Space


@dataclass(frozen=True)
class WeightsFile:
    """One file of weights: where it comes from, what it must be, and where it lies if it is here."""

    source: str  # what to install or fetch, in words a user can act on
    sha256: str | None  # None: not published; recorded when the file is first seen
    size_bytes: int
    path: Path | None
    role: str = ""  # what it holds; its digest goes under this name into the space
    address: str | None = None  # where it is published: https://... or hf://OWNER/NAME/FILE
    place: Path | None = None  # where it is put when it is fetched

    def found(self) -> Path | None:
        """Where it lies now, if it is on this machine."""
        if self.path is not None:
            return self.path
        return self.place if self.place is not None and self.place.is_file() else None


@dataclass(frozen=True)
class EncoderSpec:
    """What is known of an encoder without loading it."""

    name: str
    family: str
    description: str
    licence: str
    space: Space  # its weights are complete in a spec that `here` returned
    weights: tuple[WeightsFile, ...]
    templates: tuple[str, ...] = ()  # that its authors put labels into; a search takes texts as they are
    test_scale: float | None = None  # what its authors multiply cosines with when they test; None: the learned scale
    classifies: bool = False  # gives labels of its own, and no vectors to search
    patch_px: int | None = None  # side of the patches of its vision tower, where other towers are as large

    @property
    def is_here(self) -> bool:
        """Whether all its weights are on this machine (which ones they are is checked before they are used)."""
        return all(file.found() is not None for file in self.weights)
