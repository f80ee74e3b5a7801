"""The stages of `vidx index` in order."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from vidx import encoders
from vidx.config import CLIP_S, IndexOptions
from vidx.decoders import FALLBACKS
from vidx.encoders import EncoderSpec, VideoTextEncoder
from vidx.encoders._weights import located
from vidx.errors import InputError, StoreError, UnknownChoice
from vidx.indexer.answers import DecodeOptions, View
from vidx.indexer.commit import Committer, FileDone
from vidx.indexer.decode import decode
from vidx.indexer.encode import encode
from vidx.indexer.jobs import Known
from vidx.indexer.patterns import Selection
from vidx.indexer.plan import Windows
from vidx.indexer.probe import Wanted, probe
from vidx.indexer.process import HeaderReader, Limits
from vidx.indexer.shots import check_detector
from vidx.indexer.vanished import Unchanged, knows, vanished
from vidx.indexer.walk import Skipped, absolute_root, is_online, no_files, walk
from vidx.plugins import available, load
from vidx.schema.records import FoundFile, printable
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.schema.store import Store
from vidx.schema.unfinished import Unfinished
from vidx.schema.writer import StoreWriter, writing

_MOST_OVERLAP = 100  # clips that may share one instant; more is a slip of the hand


@dataclass(frozen=True)
class Done:
    """The account of a whole run; see Counts.as_dict."""

    counts: dict[str, int]
    seconds: float


def index_archive(
    root: Path,
    store: Store,
    options: IndexOptions,
    *,
    takes: Callable[[FoundFile | Skipped], bool] | None = None,
    build: Callable[[EncoderSpec], VideoTextEncoder] = encoders.build,
) -> Iterator[FileDone | Done]:
    """Bring the store up to date with the videos under `root`; one FileDone per file, Done at the end.

    What is committed stays whatever happens: an interrupted run is finished by running it again. A root that is absent
    or empty is an offline drive if the store knows files below it: they are marked missing. What `takes` is false for
    is left as it is. Raises VidxError.
    """
    started, began = datetime.now(UTC), time.monotonic()
    root = absolute_root(root)
    online = is_online(root)
    if not online and not knows(Snapshot(store), os.fsencode(root)):
        raise no_files(root)
    specs, views = _settle(store, options)
    built = {spec.space.name: build(spec) for spec in specs}
    with writing(store, break_lock=options.break_lock) as writer:
        for spec in specs:
            writer.add_space(spec.space)
        run_id = uuid4().hex
        record = _RunRecord(writer, specs, run_id, root, options, started)
        making = _Making(built, views, options, run_id)
        committer, unchanged = Committer(writer, options, making.provenance), Unchanged()
        try:
            if online:
                yield from _stages(root, writer, making, committer, unchanged, takes)
            committer.flush()  # so that what has moved is found at its new place
            for gone in vanished(Snapshot(store), os.fsencode(root), unchanged, online=online):
                yield from committer.take(gone)
            committer.flush()
        except (KeyboardInterrupt, GeneratorExit):
            committer.flush()
            record.write("interrupted", committer)
            raise
        except BaseException:
            with suppress(StoreError):  # the first trouble is the one to tell
                record.write("error", committer)
            raise
        record.write("done", committer)
        writer.compact()
    yield Done(committer.counts.as_dict(), round(time.monotonic() - began, 3))


@dataclass(frozen=True)
class _Making:
    """How this run makes clips; part of it goes into every `indexed` row."""

    encoders: dict[str, VideoTextEncoder]  # by the name of the space
    views: dict[str, View]
    options: IndexOptions
    run_id: str

    def provenance(self, space: str) -> dict[str, Any]:
        """Columns of `indexed`; asking for the device may load torch."""
        return {
            "plan": self.views[space].windows.to_json(),
            "device": self.encoders[space].device,
            "precision": self.encoders[space].precision,
            "run_id": self.run_id,
        }

    def would_make(self, attempt: Unfinished) -> bool:
        """Whether this run would give an attempt the clips it has; decoders check their versions themselves."""
        own = self.provenance(attempt.space) | {"decode_mode": self.options.decode_mode}
        alike = all(getattr(attempt, name) == own[name] for name in ("plan", "decode_mode", "device", "precision"))
        return attempt.resumable and alike


def _stages(
    root: Path,
    writer: StoreWriter,
    making: _Making,
    committer: Committer,
    unchanged: Unchanged,
    takes: Callable[[FoundFile | Skipped], bool] | None,
) -> Iterator[FileDone]:
    store, options = writer.store, making.options
    limits = Limits(options.stall_s, options.memory_bytes)
    log_path = store.path / "logs" / f"{making.run_id}.log"
    with _open_log(log_path) as log, closing(HeaderReader(limits, log)) as headers:
        decode_options = DecodeOptions(
            decoders=_decoders(options.decoder),
            mode=options.decode_mode,
            views=making.views,
            thumbnails=options.thumbnails,
            workers=options.workers or os.cpu_count() or 1,
            limits=limits,
            log=log,
            # Still clips are compared one after the other, and every part would look for all shots again.
            share=not options.skip_still and options.segment != "shots",
        )
        wanted = Wanted(
            plans={space: view.windows.to_json() for space, view in making.views.items()},
            plan_is_asked=options.plan_is_asked,
            least_mode=options.decode if options.is_asked("decode") else None,
            retry_failed=options.retry_failed,
            resumable=making.would_make,
            announced=headers.announced,
        )
        selection = Selection(root, options.include, options.exclude, options.patterns_from)
        walked = walk(root, follow=options.follow, selection=selection)
        entries = walked if takes is None else filter(takes, walked)
        found = probe(entries, Snapshot(store), wanted, writer.without_outcome())
        with closing(decode(found, decode_options)) as decoded:
            for item in encode(decoded, making.encoders, options.batch_size, skip_still=options.skip_still):
                if isinstance(item, Known) and item.up_to_date:
                    unchanged.add(item.file.path_bytes)
                yield from committer.take(item)
    if log_path.stat().st_size == 0:  # mostly they have nothing to say
        log_path.unlink()


def _open_log(path: Path) -> IO[bytes]:
    """A file for what decoders have to say. Raises StoreError."""
    try:
        return open(path, "ab")
    except OSError as error:
        raise StoreError(f"can't write {path}: {error.strerror}", hint="free some space or mend the disk") from error


def _decoders(first: str) -> tuple[str, ...]:
    """The decoder asked for, and the one that gets what it refuses or what kills a process of it."""
    others = (name for name, library in FALLBACKS.items() if name != first and find_spec(library))
    return (first, *islice(others, 1))


def is_new(path: Path) -> bool:
    """Whether nothing tells yet which encoder the store at `path` is for. Raises StoreError."""
    return not (path / "store.json").exists() or Store.open(path).facts().default_space is None


def check_encoders(path: Path, options: IndexOptions) -> list[Space]:
    """The spaces of a run, and what `index_archive` would raise of its encoders, before there is a store at `path`."""
    if is_new(path):
        known: list[str] = []
        specs = _once(encoders.here(name, options.weights) for name in options.encoder or (encoders.FALLBACK,))
    else:
        store = Store.open(path)
        known, specs = store.spaces(), _encoders(store, options)
    for spec in specs:
        if spec.space.name not in known and any(file.role for file in spec.weights):  # others know their own files
            encoders.try_out(spec)
    return [spec.space for spec in specs]


def _encoders(store: Store, options: IndexOptions) -> list[EncoderSpec]:
    """The encoders asked for, each once, else the store's, with the weights given, else those used with them before."""
    return _once(_encoder(store, name, options.weights) for name in options.encoder or (None,))


def _once(specs: Iterable[EncoderSpec]) -> list[EncoderSpec]:
    """One spec for each space."""
    return list({spec.space.name: spec for spec in specs}.values())


def _encoder(store: Store, encoder: str | None, weights: tuple[Path, ...]) -> EncoderSpec:
    default_space = store.facts().default_space
    if weights or (encoder is None and default_space is None):
        default = store.space(default_space).encoder if default_space else encoders.FALLBACK
        return encoders.here(encoder or default, weights)
    if encoder is not None:
        if encoders.is_trained_folder(encoder):  # which says what it is, whatever was made with one of its name
            return encoders.here(encoder)
        name = encoders.known_as(encoder)
        known = [space for known in store.spaces() if (space := store.space(known)).encoder == name]
        spec = encoders.of_space(known[0]) if len(known) == 1 else encoders.here(name)
        return spec if spec.is_here else encoders.here(name)  # other weights may have come
    assert default_space is not None
    spec = encoders.of_space(store.space(default_space))
    if spec.space.name != default_space:
        raise StoreError(
            f"the store was indexed with other weights or settings of {spec.name} ({default_space})",
            hint=f"`--encoder {spec.name}` starts a space of its own beside it ({spec.space.name})",
        )
    for file in spec.weights:
        located(file, spec.name)
    return spec


def _settle(store: Store, options: IndexOptions) -> tuple[list[EncoderSpec], dict[str, View]]:
    """The encoders of this run and what each sees, by the name of its space; checked before any file is touched."""
    specs = _encoders(store, options)
    if options.decoder not in available("decoders"):
        raise UnknownChoice(
            f"no decoder called {options.decoder!r}", hint=f"choose from: {', '.join(available('decoders'))}"
        )
    if (library := FALLBACKS.get(options.decoder)) and not find_spec(library):
        raise InputError(f"{library} is not installed", hint="install it, or leave out --decoder")
    if options.decoder != IndexOptions.decoder and hasattr(decoder := load("decoders", options.decoder), "check"):
        decoder.check()
    segment = options.segment or "windows"
    if segment == "shots":
        check_detector()
    clip_s = float(options.clip_s or CLIP_S)
    stride_s = float(options.stride_s or clip_s)
    if clip_s > _MOST_OVERLAP * stride_s:
        raise InputError(
            f"a clip of {clip_s:g} s every {stride_s:g} s is too much", hint=f"overlap at most {_MOST_OVERLAP} clips"
        )
    windows = Windows(clip_s, stride_s, frames=0, segment=segment, skip_still=options.skip_still)
    spaces = [spec.space for spec in specs]
    return specs, {s.name: View(replace(windows, frames=s.frames), s.preprocess) for s in spaces}


@dataclass
class _RunRecord:
    """The rows of the runs table, one for each encoder, written once, however the run ends."""

    writer: StoreWriter
    specs: list[EncoderSpec]
    run_id: str
    root: Path
    options: IndexOptions
    started_at: datetime

    def write(self, state: str, committer: Committer) -> None:
        from importlib.metadata import version

        run = {
            "run_id": self.run_id,
            "command": f"index {printable(os.fsencode(self.root))}",
            "options": json.dumps(asdict(self.options), default=str),
            "vidx_version": version("vidx"),
            "started_at": self.started_at,
            "finished_at": datetime.now(UTC),
            "state": state,
            "counts": json.dumps(committer.counts.as_dict()),
        }
        self.writer.record_runs(
            [
                {**run, "encoder": spec.name, "space": spec.space.name, "weights_digest": spec.space.weights_digest}
                for spec in self.specs
            ]
        )
