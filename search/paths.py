"""Videos by the paths that people write down."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from vidx.schema.snapshot import Snapshot


def videos_at(snapshot: Snapshot, paths: Iterable[str], among: Collection[str]) -> dict[str, set[str]]:
    """The contents, of those `among`, that lie at each path; none, or several, where it says too little.

    A path that is not absolute is taken as the end of one, where nothing lies at the very path.
    """
    wanted = {path: os.path.normpath(path) for path in paths}
    by_name: dict[str, list[tuple[str, str]]] = {}
    for path, video_id in snapshot.rows(
        "SELECT path, video_id FROM files WHERE string_split(path, '/')[-1] IN (SELECT unnest($names::VARCHAR[]))",
        {"names": sorted({os.path.basename(path) for path in wanted.values()})},
    ):
        if video_id in among:
            by_name.setdefault(os.path.basename(path), []).append((path, video_id))
    found = {}
    for given, path in wanted.items():
        known = by_name.get(os.path.basename(path), [])
        found[given] = {video_id for other, video_id in known if other in (given, path)}
        if not found[given] and not os.path.isabs(path):
            found[given] = {video_id for other, video_id in known if other.endswith(f"/{path}")}
    return found
