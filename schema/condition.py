"""The condition of `--where`: one expression over a flat row for each path of each live clip.

It is not searched for bad words. DuckDB's own parser turns it into a tree, and every node of that must be of a kind
that is known to be harmless.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np

from vidx.errors import InputError
from vidx.schema.snapshot import Snapshot
from vidx.schema.sql import plain, readable, told

_ROW = """
SELECT f.path, f.root, f.size AS size_bytes, make_timestamp(f.mtime_ns // 1000) AT TIME ZONE 'UTC' AS modified_at,
    f.state AS file_state, c.video_id, v.container, v.codec, v.pixel_format, v.width, v.height, v.rotation,
    v.frame_rate, v.n_frames, v.duration_s, v.has_audio, v.timecode, v.created_at, c.clip_id, c.start_s, c.end_s,
    n.state, n.reason, n.indexed_at, {recorded_at} AS recorded_at,
    {recorded_at} + to_microseconds((c.start_s * 1e6)::BIGINT) AS clip_at, {label} AS label,
    {probability} AS probability
FROM {clips} c JOIN files f ON f.video_id = c.video_id
JOIN newest n ON n.video_id = c.video_id AND n.space = '{space}'
LEFT JOIN videos v ON v.video_id = c.video_id {tags}
"""
# A clip has a row for each label that overlaps it, by more than times are rounded to; one without times always does.
_TAGS = """LEFT JOIN tags t ON t.tag_set = $vidx_tag_set AND t.video_id = c.video_id AND t.label IS NOT NULL
    AND coalesce(t.start_s < c.end_s - 0.001 AND t.end_s > c.start_s + 0.001, true)"""
_OF_TAGS = {"label", "probability"}
# What a camera writes, unless it had no clock: containers count from 1904 or 1970.
_RECORDED_AT = """
coalesce(CASE WHEN try_cast(v.created_at AS TIMESTAMPTZ) > TIMESTAMPTZ '1970-01-02 00:00:00+00'
    THEN try_cast(v.created_at AS TIMESTAMPTZ) END, make_timestamp(f.mtime_ns // 1000) AT TIME ZONE 'UTC')"""
COLUMNS = re.findall(r"(?:AS |\b[fcvn]\.)(\w+)(?=,|\nFROM)", _ROW)

_NAMES = {*COLUMNS, "current_date", "current_timestamp"}
_HARMLESS = {"CONSTANT", "COMPARISON", "CONJUNCTION", "OPERATOR", "BETWEEN", "CASE", "CAST", "TYPE", "COLLATE"}
# Functions that give another answer every time or do more than answer, and those that are not of one row.
_UNFIT = """
SELECT function_name FROM duckdb_functions() WHERE list_contains($names, function_name) GROUP BY function_name
HAVING bool_or(stability = 'VOLATILE') OR NOT bool_or(function_type IN ('scalar', 'macro'))
"""


class Filters(NamedTuple):
    """What clips must meet: a condition over COLUMNS, and recorded from `after` on and before `before`."""

    condition: str | None = None
    after: datetime | None = None
    before: datetime | None = None
    tag_set: str | None = None  # that label and probability are of; None: the one written to last


def matching_clips(snapshot: Snapshot, space: str, filters: Filters) -> tuple[np.ndarray, np.ndarray]:
    """Ascending ids int64 (n,) of the live clips of a space that pass, and float32 (n,): how probable their tags are.

    There is a row for each path of the content, and each tag of the set that overlaps the clip; one that holds is
    enough, and of several the most probable one is told. Zero where the condition names no tags. Raises InputError.
    """
    condition = filters.condition
    named = _check(snapshot, readable(condition)) if condition is not None else set()
    parameters: dict[str, Any] = {"vidx_after": filters.after, "vidx_before": filters.before}
    parameters = {name: time for name, time in parameters.items() if time is not None}
    recorded = [f"clip_at {'>=' if name == 'vidx_after' else '<'} ${name}" for name in parameters]
    columns = {"label": "NULL::VARCHAR", "probability": "NULL::FLOAT", "tags": ""}
    if named & _OF_TAGS:
        columns = {"label": "t.label", "probability": "t.probability", "tags": _TAGS}
        parameters["vidx_tag_set"] = _settled_tag_set(snapshot, filters.tag_set)
    row = _ROW.format(clips=snapshot.clips(space), space=space, recorded_at=_RECORDED_AT, **columns)
    clips = f"SELECT * FROM ({row}) WHERE {' AND '.join(recorded) or 'true'}"
    # The condition comes last, where whatever it may end in has nothing to swallow.
    query = (
        "SELECT DISTINCT clip_id, coalesce(probability, 0)::FLOAT AS chance"
        f" FROM ({clips}) AS clip WHERE {'true' if condition is None else condition}"
    )
    with told(_wrong):
        found = snapshot.select(query, parameters).to_arrow_table()
    each: np.ndarray = np.from_dlpack(found["clip_id"].combine_chunks())
    chances: np.ndarray = np.from_dlpack(found["chance"].combine_chunks())
    order = np.lexsort((-chances, each))
    ids, first = np.unique(each[order], return_index=True)
    return ids, chances[order][first]


def _settled_tag_set(snapshot: Snapshot, asked: str | None) -> str:
    """The set of tags asked for, else the newest. Raises InputError where there is none."""
    known = snapshot.store.tag_sets()
    if asked is not None and asked not in known:
        raise InputError(f"no set of tags called {asked!r}", hint=f"there are: {', '.join(known) or 'none'}")
    chosen = asked or snapshot.newest_tag_set()
    if chosen is None:
        raise InputError("--where names a label, and there are no tags yet", hint="leave out label and probability")
    return chosen


def _check(snapshot: Snapshot, condition: str) -> set[str]:
    """The columns that a condition names. Raises InputError for whatever is more than an expression over COLUMNS."""
    if not condition.strip():
        raise _wrong("it is empty")
    [expected] = _statements(snapshot, "true")
    statements = _statements(snapshot, condition)
    tree = statements[0]["node"].get("where_clause")
    functions, columns = set(), set()
    for node in _nodes(tree):
        if node["class"] == "COLUMN_REF":
            columns.add(node["column_names"][-1].lower())
        if refusal := _refusal(node):
            raise _wrong(refusal)
        if node["class"] == "FUNCTION" and not node["is_operator"]:
            functions.add(node["function_name"])
    if tree is None or [_around(statement) for statement in statements] != [_around(expected)]:
        raise _wrong(_ONE_EXPRESSION)
    if functions and (unfit := snapshot.rows(_UNFIT, {"names": sorted(functions)})):
        raise _wrong(f"the function {unfit[0][0]} can't be used here")
    return columns


def _statements(snapshot: Snapshot, condition: str) -> list[dict[str, Any]]:
    """Trees of the statements that a SELECT becomes with the condition at its end. Raises InputError."""
    query = f"SELECT 1 FROM clip WHERE {condition}"
    [(text,)] = snapshot.rows("SELECT json_serialize_sql($query::VARCHAR)", {"query": query})
    try:
        parsed = json.loads(text)
    except RecursionError:
        raise _wrong("it is nested too deeply") from None
    if parsed["error"]:
        raise _wrong(parsed["error_message"] if parsed["error_type"] == "parser" else _ONE_EXPRESSION)
    statements: list[dict[str, Any]] = parsed["statements"]
    return statements


def _around(statement: dict[str, Any]) -> dict[str, Any]:
    """What a statement is beside its condition."""
    return {**statement, "node": {**statement["node"], "where_clause": None}}


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every node of a parsed expression."""
    waiting = [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if "class" in part:
                yield part
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _refusal(node: dict[str, Any]) -> str | None:
    """Why a node of a condition is not taken, None where it is."""
    kind = node["class"]
    if kind == "COLUMN_REF":
        name = ".".join(node["column_names"])
        return None if name.lower() in _NAMES else f"there is no column {name}"
    if kind == "FUNCTION":
        name = ".".join(filter(None, (node["catalog"], node["schema"], node["function_name"])))
        if name != node["function_name"] or name.startswith("__"):
            return f"there is no function {name}"
        of_many_rows = node["filter"] or node["distinct"] or node["order_bys"]["orders"]
        return f"the function {name} can't be used here" if of_many_rows else None
    return None if kind in _HARMLESS else f"a {kind.lower().replace('_', ' ')} can't be used here"


def _wrong(text: str) -> InputError:
    return InputError(f"--where: {plain(text)}", hint=f"columns: {', '.join(COLUMNS)}")


_ONE_EXPRESSION = "it must be one expression"
