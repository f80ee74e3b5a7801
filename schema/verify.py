"""Whether the clips of a store are what its tables say: all there, once, with vectors that can be right."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vidx.errors import StoreDamaged
from vidx.schema.live import batches, live_ranges
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space

_NORM_TOLERANCE = 1e-3


def clip_troubles(snapshot: Snapshot, space: Space) -> Iterator[str]:
    """What is wrong with the live clips of a space, one line for each kind of trouble, with ids to look up."""
    ranges, _ = live_ranges(snapshot, space)
    times_seen = np.zeros(ranges.n_clips, np.int8)
    not_finite: list[int] = []
    not_unit: list[int] = []
    backwards: list[int] = []
    try:
        for ids, times_s, vectors in batches(snapshot, space, ranges):
            place = ranges.place(ids)
            live = place >= 0
            np.add.at(times_seen, (ranges.offsets[place] + ids - ranges.firsts[place])[live], 1)
            finite = np.isfinite(vectors).all(axis=1)
            norms = np.linalg.norm(np.where(finite[:, None], vectors, 0), axis=1)
            not_finite += ids[live & ~finite].tolist()
            not_unit += ids[live & finite & (np.abs(norms - 1) > _NORM_TOLERANCE)].tolist()
            backwards += ids[live & ~(times_s[:, 0] < times_s[:, 1])].tolist()
    except StoreDamaged as error:
        yield str(error)
        return
    all_ids = ranges.ids()
    troubles = {
        "are recorded and not there": all_ids[times_seen == 0].tolist(),
        "are there more than once": all_ids[times_seen > 1].tolist(),
        "have vectors that are not finite": not_finite,
        "have vectors that are not of unit norm": not_unit,
        "end before they start": backwards,
    }
    for what, ids in troubles.items():
        if ids:
            yield f"{len(ids)} clips of {space.name} {what}, the first with clip_id {ids[0]}"
