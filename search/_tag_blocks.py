"""The live clips of a space as blocks of whole videos, a few thousand clips in memory at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vidx.errors import StoreDamaged
from vidx.schema.live import Ranges, batches
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.search._tag_rows import Block


def whole_videos(snapshot: Snapshot, space: Space, live: Ranges, n_clips: int) -> Iterator[Block]:
    """Blocks of about `n_clips` clips, more only where one video has more, in the order in which they are stored.

    The clips of a video mostly lie together; those of one that is not complete yet are held back. Raises StoreDamaged
    where clips are missing, or there twice.
    """
    left = live.counts.copy()
    held: list[Block] = []
    n_held = 0
    for ids, times_s, vectors in batches(snapshot, space, live):
        videos = live.place(ids)
        read = Block(videos, ids, times_s, vectors)
        if not (kept := videos >= 0).all():
            read = read.at(kept)
        np.subtract.at(left, read.videos, 1)
        held.append(read)
        n_held += len(read.ids)
        if n_held >= n_clips:
            together = _joined(held)
            whole = left[together.videos] == 0
            if whole.any():
                yield _in_order(space, together.at(whole))
            rest = together.at(~whole)
            held, n_held = [rest], len(rest.ids)
    if n_held and (left == 0).all():
        yield _in_order(space, _joined(held))
    elif (left != 0).any():
        raise _not_whole(space)


def _joined(blocks: list[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    return Block(
        np.concatenate([block.videos for block in blocks]),
        np.concatenate([block.ids for block in blocks]),
        np.concatenate([block.times_s for block in blocks]),
        np.concatenate([block.vectors for block in blocks]),
    )


def _in_order(space: Space, block: Block) -> Block:
    """By video, then by time. Raises StoreDamaged where a clip is there twice, in the place of another."""
    if len(np.unique(block.ids)) < len(block.ids):
        raise _not_whole(space)
    order = np.lexsort((block.ids, block.times_s[:, 0], block.videos))
    return block if (np.diff(order) == 1).all() else block.at(order)


def _not_whole(space: Space) -> StoreDamaged:
    return StoreDamaged(
        f"the clips of {space.name} are not whole: some are missing, or there twice",
        hint="`vidx verify` counts them; restore the store from a backup",
    )
