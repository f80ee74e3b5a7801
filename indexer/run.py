"""The stages of `vidx index` in order."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from vidx import __version__, encoders
from vidx.config import CLIP_S, IndexOptions
from vidx.encoders import EncoderSpec, VideoTextEncoder
from vidx.errors import InputError, StoreError, UnknownChoice
from vidx.indexer.commit import Committer, FileDone
from vidx.indexer.decode import DecodeOptions, decode
from vidx.indexer.encode import encode
from vidx.indexer.plan import Windows
from vidx.indexer.probe import probe
from vidx.indexer.walk import check_root, walk
from vidx.plugins import available
from vidx.schema.records import printable
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.schema.writer import StoreWriter, writing

_MOST_OVERLAP = 100  # clips that may share one instant; more is a slip of the hand


@dataclass(frozen=True)
class Done:
    """The account of a whole run; see Counts.as_dict."""

    counts: dict[str, int]
    seconds: float


def index_archive(root: Path, store: Store, options: IndexOptions) -> Iterator[FileDone | Done]:
    """Bring the store up to date with the videos under `root`; one FileDone per file, Done at the end.

    What is committed stays whatever happens: an interrupted run is finished by running it again. Raises VidxError.
    """
    started, began = datetime.now(UTC), time.monotonic()
    root = check_root(root)
    spec, windows = _settle(store, options)
    encoder = encoders.build(spec.name)
    with writing(store) as writer:
        writer.add_space(spec.space)
        run_id = uuid4().hex
        record = _RunRecord(writer, spec, run_id, root, options, started)
        committer = _committer(writer, spec, encoder, run_id, windows, options)
        try:
            yield from _stages(root, store, encoder, windows, options, committer, run_id)
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


def _stages(
    root: Path,
    store: Store,
    encoder: VideoTextEncoder,
    windows: Windows,
    options: IndexOptions,
    committer: Committer,
    run_id: str,
) -> Iterator[FileDone]:
    space = encoder.spec.space
    log_path = store.path / "logs" / f"{run_id}.log"
    with open(log_path, "ab") as log:
        decode_options = DecodeOptions(
            decoder=options.decoder,
            preprocess=space.preprocess,
            windows=windows,
            thumbnails=options.thumbnails,
            workers=options.workers or os.cpu_count() or 1,
            stall_s=options.stall_s,
            log=log,
        )
        asked_plan = windows.to_json() if options.plan_is_asked else None
        found = probe(walk(root), Snapshot(store), space.name, asked_plan)
        with closing(decode(found, decode_options)) as decoded:
            for item in encode(decoded, encoder, options.batch_size):
                yield from committer.take(item)
    if log_path.stat().st_size == 0:  # what the decoders had to say, mostly nothing
        log_path.unlink()


def _settle(store: Store, options: IndexOptions) -> tuple[EncoderSpec, Windows]:
    """The encoder and the windows of this run, checked before any file is touched."""
    default_space = store.facts().default_space
    default = store.space(default_space).encoder if default_space else encoders.DEFAULT
    spec = encoders.here(options.encoder or default)
    if default_space and options.encoder is None and spec.space.name != default_space:
        raise StoreError(
            f"the store was indexed with other weights or settings of {default} ({default_space})",
            hint=f"`--encoder {default}` starts a space of its own beside it ({spec.space.name})",
        )
    if options.decoder not in available("decoders"):
        raise UnknownChoice(
            f"no decoder called {options.decoder!r}", hint=f"choose from: {', '.join(available('decoders'))}"
        )
    clip_s = float(options.clip_s or CLIP_S)
    stride_s = float(options.stride_s or clip_s)
    if clip_s > _MOST_OVERLAP * stride_s:
        raise InputError(
            f"a clip of {clip_s:g} s every {stride_s:g} s is too much", hint=f"overlap at most {_MOST_OVERLAP} clips"
        )
    return spec, Windows(clip_s, stride_s, spec.space.frames)


def _committer(
    writer: StoreWriter,
    spec: EncoderSpec,
    encoder: VideoTextEncoder,
    run_id: str,
    windows: Windows,
    options: IndexOptions,
) -> Committer:
    def provenance() -> dict[str, Any]:
        return {
            "plan": windows.to_json(),
            "decoder": options.decoder,
            "decode_mode": "exact",
            "device": encoder.device,
            "precision": encoder.precision,
            "run_id": run_id,
        }

    snapshot = Snapshot(writer.store)

    def is_known(video_id: str) -> bool:
        return bool(snapshot.rows("SELECT 1 FROM videos WHERE video_id = $id", {"id": video_id}))

    return Committer(writer, spec.space.name, options, provenance, is_known)


@dataclass
class _RunRecord:
    """The row of the runs table, written once, however the run ends."""

    writer: StoreWriter
    spec: EncoderSpec
    run_id: str
    root: Path
    options: IndexOptions
    started_at: datetime

    def write(self, state: str, committer: Committer) -> None:
        space = self.spec.space
        self.writer.record_run(
            {
                "run_id": self.run_id,
                "command": f"index {printable(os.fsencode(self.root))}",
                "options": json.dumps(asdict(self.options)),
                "encoder": self.spec.name,
                "space": space.name,
                "weights_digest": space.weights_digest,
                "vidx_version": __version__,
                "started_at": self.started_at,
                "finished_at": datetime.now(UTC),
                "state": state,
                "counts": json.dumps(committer.counts.as_dict()),
            }
        )
