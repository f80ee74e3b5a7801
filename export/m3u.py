"""A playlist: each hit with where to start and to stop, for players that know it (VLC); others play whole files."""

from __future__ import annotations

from collections.abc import Mapping

from vidx.export import clock, shown
from vidx.export._media import Media, TimelineOptions
from vidx.schema.records import Answer


def to_timeline(answer: Answer, media: Mapping[str, Media], options: TimelineOptions) -> bytes:
    """Extended M3U in UTF-8. Files are absolute file:// URLs, so no name can break a line or be taken for an option."""
    lines = ["#EXTM3U"]
    for hit in answer.hits:
        facts = media[hit.video_id]
        start_s, end_s = facts.span_s(hit, options.handles_s)
        name = shown(hit.path.rsplit("/", 1)[-1])
        lines += [
            f"#EXTINF:{max(1, round(end_s - start_s))},{hit.rank}. {name} {clock(start_s)}",
            f"#EXTVLCOPT:start-time={start_s:.3f}",
            f"#EXTVLCOPT:stop-time={end_s:.3f}",
            facts.url_of(hit),
        ]
    return "\n".join([*lines, ""]).encode()
