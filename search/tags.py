"""`vidx tag`: every clip of a space against every label, from the vectors that are stored or the frames."""

from __future__ import annotations

import json
import os
import secrets
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa

from vidx.config import TagOptions
from vidx.errors import StoreMissing
from vidx.schema.live import Ranges, live_ranges
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.schema.store import Store
from vidx.schema.tag_tables import tagging
from vidx.search._tag_blocks import whole_videos
from vidx.search._tag_plan import TagPlan, plan_of
from vidx.search._tag_rows import Block, Encoding, Rows, rows_of
from vidx.search.query import settled_space

_BLOCK_CLIPS = 8192
_DECODED_CLIPS = 256
_BLOCK_NUMBERS = 2**22  # probabilities of a block, 16 MB, of which a thread holds a few copies
_MOST_THREADS = 8
_AHEAD = 2  # blocks that wait for each thread

Tell = Callable[[int, int], None]


@dataclass
class Tagged:
    """What a run of `vidx tag` came to."""

    tag_set: str
    space: str
    run_id: str
    n_clips: int
    n_videos: int
    n_rows: int = 0
    unmatched: dict[str, int] = field(default_factory=dict)  # clips, or videos, without a label, by level
    labels: dict[str, int] = field(default_factory=dict)  # rows of each label, most first
    calibration: dict[str, Any] | None = None  # its report, where one was used
    notes: list[str] = field(default_factory=list)


def tag(store: Store, options: TagOptions, tell: Tell = lambda done, total: None) -> Tagged:
    """Give labels to all live clips of a space, and keep them as a set of tags in place of the one before.

    `tell` hears how many clips of how many are done. Raises VidxError.
    """
    began = datetime.now(UTC)
    space, snapshot = settled_space(store, options.encoder), Snapshot(store)
    live, video_ids = live_ranges(snapshot, space)
    if live.n_clips == 0:
        raise StoreMissing(f"no video is indexed with {space.encoder} yet", hint="run `vidx index FOLDER` first")
    with tagging(store) as writer:
        plan = plan_of(snapshot, space, options)
        run_id = secrets.token_hex(16)
        done = Tagged(plan.tag_set, space.name, run_id, live.n_clips, len(live.firsts), notes=plan.notes)
        done.calibration = plan.facts["calibration"]
        encoding = _encoding(snapshot, plan, video_ids.combine_chunks(), run_id)
        count = _Count(plan)
        rows = count.each(_rows(snapshot, space, live, plan, tell))
        facts = {"vidx": version("vidx"), "run_id": run_id, "space": space.name, **plan.facts}
        if plan.learnt is not None:
            writer.write_calibration(plan.tag_set, {**plan.key, "calibration": plan.learnt.calibration.to_json()})
        done.n_rows = writer.replace(plan.tag_set, run_id, map(encoding.batch, rows), facts)
        done.labels, done.unmatched = count.labels(), count.unmatched
        if plan.undecoded:
            done.notes.append(f"{len(plan.undecoded)} of {live.n_clips} clips could not be decoded and got no rows")
        writer.record_run(_run_row(space, options, began, done))
    return done


class _Count:
    """Rows of each label, and what got none, counted as they pass."""

    def __init__(self, plan: TagPlan) -> None:
        self._names, self._counts = plan.scorer.names, np.zeros(len(plan.scorer.names), np.int64)
        self.unmatched = dict.fromkeys(plan.rules, 0)

    def each(self, rows: Iterator[Rows]) -> Iterator[Rows]:
        for found in rows:
            told = found.labels[found.labels >= 0]
            self._counts += np.bincount(told, minlength=len(self._counts))
            self.unmatched[found.level] += len(found.labels) - len(told)
            yield found

    def labels(self) -> dict[str, int]:
        most = np.argsort(-self._counts, kind="stable").tolist()
        return {self._names[at]: int(self._counts[at]) for at in most if self._counts[at]}


def _rows(snapshot: Snapshot, space: Space, live: Ranges, plan: TagPlan, tell: Tell) -> Iterator[Rows]:
    """Rows of each level, block by block in order; several blocks are worked on at once."""

    def worked(block: Block) -> tuple[int, list[Rows]]:
        kept, scored = plan.score(block)
        return len(block.ids), [rows_of(level, kept, scored, rule) for level, rule in plan.rules.items()]

    # Decoding takes all cores by itself; each thread holds some 100 MB, and reading is not faster than a few.
    decodes = plan.undecoded is not None
    n_threads = 1 if decodes else min(_MOST_THREADS, os.cpu_count() or 1)
    n_clips = min(_BLOCK_CLIPS, max(1, _BLOCK_NUMBERS // max(1, len(plan.scorer.names))))
    if decodes:  # and so tell how far it is from time to time
        n_clips = min(n_clips, _DECODED_CLIPS)
    waiting: deque[Future[tuple[int, list[Rows]]]] = deque()
    done = 0
    with ThreadPoolExecutor(n_threads) as pool:
        blocks = whole_videos(snapshot, space, live, n_clips)
        while block := next(blocks, None):
            waiting.append(pool.submit(worked, block))
            if len(waiting) > _AHEAD * n_threads:
                n_more, rows = waiting.popleft().result()
                yield from rows
                tell(done := done + n_more, live.n_clips)
        for future in waiting:
            n_more, rows = future.result()
            yield from rows
            tell(done := done + n_more, live.n_clips)


def _encoding(snapshot: Snapshot, plan: TagPlan, video_ids: pa.Array, run_id: str) -> Encoding:
    """The columns that are the same in every row, and paths: the first of each video's, in the order of bytes."""
    first = "QUALIFY row_number() OVER (PARTITION BY video_id ORDER BY path_bytes) = 1"
    paths = dict(snapshot.rows(f"SELECT video_id, path FROM files {first}"))
    constants = {
        **plan.columns,
        "tag_set": plan.tag_set,
        "run_id": run_id,
    }
    of_videos = pa.array([paths[video_id] for video_id in video_ids.to_pylist()], pa.string())
    return Encoding(plan.scorer.names, video_ids, of_videos, constants)


def _run_row(space: Space, options: TagOptions, began: datetime, done: Tagged) -> dict[str, Any]:
    counts = {"clips": done.n_clips, "videos": done.n_videos, "rows": done.n_rows, "unmatched": done.unmatched}
    return {
        "run_id": done.run_id,
        "command": f"tag {done.tag_set}",
        "options": json.dumps(asdict(options), default=str),
        "encoder": space.encoder,
        "space": space.name,
        "weights_digest": space.weights_digest,
        "vidx_version": version("vidx"),
        "started_at": began,
        "finished_at": datetime.now(UTC),
        "state": "done",
        "counts": json.dumps(counts),
    }
