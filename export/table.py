"""A plain table for people: rank, score, time range, path. Paths come last and are never cut."""

from __future__ import annotations

from vidx.export import clock, shown
from vidx.schema.records import Answer, Trouble


def to_text(answer: Answer) -> str:
    """One line a hit; files on drives that are not there now are marked."""
    lines = [f"{'#':>3}  {'score':>6}  {'from':>10}  {'to':>10}  file"]
    for hit in answer.hits:
        offline = "" if hit.online else "  (offline)"
        times = f"{clock(hit.start_s):>10}  {clock(hit.end_s):>10}"
        lines.append(f"{hit.rank:>3}  {hit.score:>6.3f}  {times}  {shown(hit.path)}{offline}")
    return "\n".join(lines)


def trouble_line(trouble: Trouble) -> str:
    """One line of `vidx status --failed`."""
    at = "" if trouble.first_bad_s is None else f" (first bad at {clock(trouble.first_bad_s)})"
    return f"{trouble.state:<7}  {shown(trouble.path)}: {shown(trouble.reason)}{at}"
