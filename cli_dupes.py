"""`vidx dupes`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidx.cli_options import number, output_options, store_option
from vidx.config import MIN_SIMILARITY, default_store

if TYPE_CHECKING:
    import pyarrow as pa

    from vidx.search.dupes import Dupes, Duplicate

_FIELDS: dict[str, type] = {
    **{"kind": str, "similarity": float},
    **{"path_a": str, "start_a_s": float, "end_a_s": float},
    **{"path_b": str, "start_b_s": float, "end_b_s": float},
    **{"covered_a": float, "covered_b": float, "online_a": bool, "online_b": bool},
    **{"video_id_a": str, "video_id_b": str},
}
_SHORT = ("kind", "similarity", "from_a", "to_a", "from_b", "to_b", "file_a", "file_b")


@click.command()
@store_option
@click.option(
    "--min-similarity",
    type=click.FloatRange(0, 1, min_open=True),
    default=MIN_SIMILARITY,
    callback=number,
    show_default=True,
    metavar="COSINE",
    help="How alike two clips must be.",
)
@click.option(
    "--by", type=click.Choice(["video", "segment"]), default="video", show_default=True, help="What a line is for."
)
@click.option("-k", type=click.IntRange(1, 1_000_000), default=100, show_default=True, help="At most so many lines.")
@click.option("--encoder", help="Compare what this encoder, or space, indexed.  [default: the store's]")
@output_options("table, json, csv or parquet")
def dupes(
    store_path: Path | None,
    min_similarity: float,
    by: str,
    k: int,
    encoder: str | None,
    format_name: str | None,
    out: Path | None,
) -> None:
    """List videos, and segments of videos, that show the same as others.

    \b
    Kinds: `video`, each shows the other; `contained`, all of A is in B; `segment`, a part.
      vidx dupes
      vidx dupes --by segment --min-similarity 0.98 -o dupes.csv
    Files that are equal to the last byte are one video with several paths, and not listed.
    """
    from vidx.export import written
    from vidx.export._choice import choose
    from vidx.schema.snapshot import Snapshot
    from vidx.schema.store import Store
    from vidx.search.collection import open_collection
    from vidx.search.dupes import duplicates
    from vidx.search.query import settled_space

    chosen_format = choose(format_name, out, "write", terminal=sys.stdout.isatty())
    store = Store.open(store_path or default_store())
    snapshot = Snapshot(store)
    collection = open_collection(snapshot, settled_space(store, encoder))
    if collection.trouble:
        click.echo(f"{collection.trouble}; compared without it; run `vidx index --rebuild-index`", err=True)
    found = duplicates(snapshot, collection, least=min_similarity, by=by, k=k, tell=_print_compared)
    with ExitStack() as stack:
        file = stack.enter_context(written(out)) if out is not None else sys.stdout.buffer
        chosen_format.write(_rows(found.rows, getattr(chosen_format, "CELLS", "values")), file)
        file.flush()
    _print_left_out(found)


def _print_compared(done: int, total: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r{done} of {total} clips compared", nl=done == total, err=True)


def _print_left_out(found: Dupes) -> None:
    if found.total > len(found.rows):
        click.echo(f"the first {len(found.rows)} of {found.total}; -k shows more", err=True)
    if found.n_hubs:
        click.echo(f"left out: {found.n_hubs} clips that are like clips of many videos (black, a test card)", err=True)
    if found.n_repeats:
        click.echo(f"left out of their own video: {found.n_repeats} clips that come again and again", err=True)


def _rows(found: list[Duplicate], cells: str) -> pa.RecordBatchReader:
    """A table of them; `cells` is as in `vidx.schema.sql.select`."""
    import io
    import json

    import pyarrow as pa
    from pyarrow import json as arrow_json

    kinds = {str: pa.string(), float: pa.float64(), bool: pa.bool_()}
    names: dict[str, type]
    rows: list[dict[str, Any]]
    if cells == "short":
        names, rows = dict.fromkeys(_SHORT, str), [_short(row) for row in found]
    else:
        names, rows = _FIELDS, [_fields(row) for row in found]
    if cells == "json":
        names = dict.fromkeys(names, str)
        rows = [{name: json.dumps(value, ensure_ascii=False) for name, value in row.items()} for row in rows]
    schema = pa.schema([(name, kinds[kind]) for name, kind in names.items()])
    if not rows:
        return pa.RecordBatchReader.from_batches(schema, [])
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    # Not pa.array, which imports pandas where there is one.
    fields = arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    at_once = arrow_json.ReadOptions(block_size=len(lines) + 1)  # no row may be longer than a block
    return arrow_json.read_json(io.BytesIO(lines), at_once, fields).to_reader()


def _fields(row: Duplicate) -> dict[str, Any]:
    return {name: _value(row, name) for name in _FIELDS}


def _value(row: Duplicate, name: str) -> Any:
    """`start_a_s` is row.a.start_s."""
    if "_a" not in name and "_b" not in name:
        return getattr(row, name)
    side = "a" if "_a" in name else "b"
    return getattr(getattr(row, side), name.replace(f"_{side}", "", 1))


def _short(row: Duplicate) -> dict[str, str]:
    """What fits on a line for people; files on drives that are not there now are marked."""
    from vidx.export import clock

    times_s = (row.a.start_s, row.a.end_s, row.b.start_s, row.b.end_s)
    files = [side.path + ("" if side.online else "  (offline)") for side in (row.a, row.b)]
    cells = [row.kind, f"{row.similarity:.3f}", *map(clock, times_s), *files]
    return dict(zip(_SHORT, cells, strict=True))
