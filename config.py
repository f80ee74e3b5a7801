"""The options of each command, explained beside their defaults, and where the store is when nobody says."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from vidx.errors import InputError

_SPAN_S = (0.1, 86400)  # of lengths of time that make sense

CLIP_S = 10.0  # window length of a new video when the user names none
STRIDE_S = 10.0
MIN_SIMILARITY = 0.92  # cosine from which clips count as near duplicates, measured in docs/explanation/dupes.md


@dataclass(frozen=True, kw_only=True)
class IndexOptions:
    """How `vidx index` samples, decodes, encodes and commits."""

    encoder: tuple[str, ...] | None = None  # None: the store's; for a new store the default of `vidx.encoders`
    weights: tuple[Path, ...] = ()  # files brought by hand, in the order of the encoder's own
    clip_s: float | None = None  # None: 10 s for new videos, and videos already planned otherwise stay as they are
    stride_s: float | None = None  # None: as clip_s; smaller overlaps, larger leaves gaps
    segment: str | None = None  # windows | shots; None: windows for new videos, and others stay as they are
    skip_still: bool = False  # a clip that shows nothing new gets the vector of the one before
    decoder: str = "pyav"  # tried first; a file that kills its process is tried with the next one
    decode: str | None = None  # exact | fast | keyframes; None: exact for new videos, and others stay as they are
    batch_size: int = 8  # clips an encoder sees at once, across videos; more only helps on a GPU
    workers: int | None = None  # decode processes; None: one per core
    stall_s: float = 60.0  # a decode process that reports nothing for this long is killed
    memory_bytes: int = 4 * 2**30  # address space of a decode process; 8K video needs a quarter of it
    commit_s: float = 30.0  # at most this much work is lost to a power cut ...
    commit_clips: int = 5000  # ... or this many clips, whichever comes first
    thumbnails: bool = True
    retry_failed: bool = False  # contents that failed before are tried again
    follow: bool = False  # links to folders that lead out of the root
    include: tuple[str, ...] = ()  # patterns as in .gitignore of what is indexed; none: everything ...
    exclude: tuple[str, ...] = ()  # ... without what these select
    patterns_from: Path | None = None  # folder above the root that patterns count from; None: the root itself
    break_lock: bool = False  # take over a lock that another host left
    from_file: tuple[str, ...] = ()  # options that the store's config.toml named, not the user for this run

    def __post_init__(self) -> None:
        _settle(self)
        _check_ranges(
            self,
            clip_s=_SPAN_S,
            stride_s=_SPAN_S,
            stall_s=_SPAN_S,
            batch_size=(1, 10_000),
            workers=(1, 256),
            memory_bytes=(2**30, 2**40),
            commit_s=(0, 86400),
            commit_clips=(1, 10_000_000),
        )
        if self.segment is not None:
            _check_choice("segment", self.segment, "windows", "shots")
        if self.segment == "shots" and self.stride_s is not None:
            raise InputError("shots have no stride", hint="leave out --stride, or --segment shots")
        if self.decode is not None:
            _check_choice("decode", self.decode, "exact", "fast", "keyframes")
        if self.weights and len(self.encoder or ()) > 1:
            raise InputError("weights are of one encoder", hint="give each encoder its own once, then several without")

    @property
    def decode_mode(self) -> str:
        """How new videos are decoded."""
        return self.decode or "exact"

    @property
    def plan_is_asked(self) -> bool:
        """Whether the user named how to cut, so that videos planned differently are planned anew."""
        return any(self.is_asked(name) for name in ("clip_s", "stride_s", "segment"))

    def is_asked(self, name: str) -> bool:
        """Whether an option was named for this run: what the store's file names holds for new videos only."""
        return getattr(self, name) is not None and name not in self.from_file


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What `vidx search` looks for beside a text, and what it returns."""

    k: int = 10
    by: str = "moment"  # clip | moment | video
    min_score: float | None = None  # standard deviations above the mean of all clips that a hit must reach
    dedupe: bool = False  # of hits that show the same, only the best
    then: tuple[str, ...] = ()  # texts of events that follow in the same video, in this order ...
    within_s: float = 30.0  # ... each at most so long after the one before
    after: datetime | None = None  # of recording, as columns recorded_at and clip_at have it; none: UTC
    before: datetime | None = None
    encoder: str | None = None  # or the name of a space; None: the store's
    rerank: int = 0  # the best so many hits are decoded again and scored as the encoder's authors do
    where: str | None = None  # SQL condition over the columns of vidx.schema.condition; None: all clips
    tag_set: str | None = None  # that label and probability are of in `where`; None: the one written to last
    like: tuple[str, ...] = ()  # files to search by, FILE or FILE@SECONDS
    model: Path | None = None  # a folder of `vidx train videomae` or `movinet`, whose labels are given
    taught: tuple[str, ...] = ()  # labels of `vidx teach` to search by
    unwanted: tuple[str, ...] = ()  # texts of what is not looked for
    thumbnails: bool = False  # a picture for each hit, as a contact sheet needs
    tag: str | None = None  # the hits get this label, in a set of tags of its own

    def __post_init__(self) -> None:
        _settle(self)
        infinity = float("inf")  # which NaN does not reach
        _check_ranges(self, k=(1, 10_000), rerank=(0, 1000), within_s=(1e-3, 86400), min_score=(-infinity, infinity))
        _check_choice("by", self.by, "moment", "clip", "video")


@dataclass(frozen=True, kw_only=True)
class TagOptions:
    """What `vidx tag` says of the archive, and how sure it must be."""

    labels: str | None = None  # a published set, or a file with a label on each line, or a .csv
    model: Path | None = None  # a folder of `vidx train videomae` or `movinet`, whose labels are given
    taught: tuple[str, ...] = ()  # labels of `vidx teach`
    tag_set: str | None = None  # under which name rows are kept, in place of older ones; None: that of the labels
    encoder: str | None = None  # or the name of a space; None: the store's
    mode: str = "single"  # one label of the set is right, or `multi`: each may be
    background: Path | None = None  # file of texts for what is none of the labels; `multi` has some of its own
    templates: tuple[str, ...] = ()  # with {} for the label; none: those of the encoder's authors
    levels: tuple[str, ...] = ("clip",)  # what gets labels: clip | segment | video
    top: int = 5  # labels of a clip or video at most
    threshold: float | None = None  # least probability; None: calibrated, else 0, or 0.5 for segments and `multi`
    calibrate: Path | None = None  # .csv with columns path, label and, if wanted, start_s and end_s
    reliability: Path | None = None  # .png of how probabilities and truth agree on the sample
    method: str = "platt"  # how probabilities are calibrated, or `isotonic`
    precision: float | None = None  # share of right labels that thresholds are to reach; None: the best F1
    calibrated: bool = True  # False: leave out what an earlier run learnt
    exact: bool = False  # decode every clip again and score as the encoder's authors do

    def __post_init__(self) -> None:
        _settle(self)
        _check_ranges(self, top=(1, 1000), threshold=(0, 1), precision=(0.01, 0.999))
        _check_choice("mode", self.mode, "single", "multi")
        _check_choice("method", self.method, "platt", "isotonic")
        for level in self.levels or ("",):
            _check_choice("level", level, "clip", "segment", "video")
        if self.calibrate is None and (self.precision is not None or self.reliability is not None):
            raise InputError("precision and reliability are of calibration", hint="give a sample with --calibrate")
        if self.calibrate is not None and not self.calibrated:
            raise InputError("a sample to calibrate with, and uncalibrated probabilities", hint="leave one out")
        if self.precision is not None and self.threshold is not None:
            raise InputError("precision chooses thresholds, and threshold names one", hint="leave one out")
        if self.model is not None and self.labels is not None:
            raise InputError("a model has labels of its own", hint="leave out --labels, or --model")
        if self.model is not None and (self.exact or self.mode != "single"):
            raise InputError("a model's labels compete, and it decodes anyway", hint="leave out --exact and --mode")
        if self.labels is None and (self.background is not None or self.templates):
            raise InputError("background and templates are for labels told by text", hint="give labels")
        if self.labels is None and self.model is None and self.calibrate is not None:
            raise InputError("calibration is for labels told by text or a model", hint="give labels")
        if strange := [template for template in self.templates if "{}" not in template]:
            raise InputError(f"template {strange[0]!r} has no place for the label", hint="write {} where it goes")


def default_store() -> Path:
    """VIDX_STORE, else the user's data folder, so that `vidx search` works from any folder."""
    if named := os.environ.get("VIDX_STORE"):
        return Path(named)
    from platformdirs import user_data_path

    return user_data_path("vidx") / "store"


def _settle(options: Any) -> None:
    """Give every field its type, whoever made the options: a single text or path counts as a tuple of one.

    Raises InputError.
    """
    for name, kind in get_type_hints(type(options)).items():
        given = getattr(options, name)
        try:
            object.__setattr__(options, name, _as(kind, given))
        except TypeError:
            wanted = getattr(kind, "__name__", str(kind)) if get_origin(kind) is None else str(kind)
            raise InputError(f"{name} can't be {given!r}", hint=f"its type is {wanted}") from None
    named = options.encoder if isinstance(options.encoder, tuple) else (options.encoder,)
    if "" in named:
        raise InputError("encoder can't be ''", hint="`vidx encoders` lists those there are")


def _as(kind: Any, given: Any) -> Any:
    """What was given as the type of a field. Raises TypeError."""
    if NoneType in get_args(kind):
        return None if given is None else _as(next(part for part in get_args(kind) if part is not NoneType), given)
    if get_origin(kind) is tuple:
        several = given if isinstance(given, list | tuple) else (given,)
        return tuple(_as(get_args(kind)[0], one) for one in several)
    if kind is Path or (kind is str and isinstance(given, Path)):
        return kind(given)
    wider = {int: Integral, float: Real}.get(kind, kind)  # NumPy's numbers are as good
    if not isinstance(given, wider) or (isinstance(given, bool) and kind is not bool):
        raise TypeError
    return kind(given) if kind in (int, float) else given


def _check_ranges(options: Any, **ranges: tuple[float, float]) -> None:
    """Raises InputError; None is in every range."""
    for name, (least, most) in ranges.items():
        given = getattr(options, name)
        if given is not None and not least <= given <= most:
            raise InputError(f"{name} can't be {given}", hint=f"give {least} to {most}")


def _check_choice(name: str, given: str, *known: str) -> None:
    """Raises InputError."""
    if given not in known:
        raise InputError(f"{name} can't be {given!r}", hint=f"choose from: {', '.join(known)}")
