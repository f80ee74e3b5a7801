"""`vidx search` and `vidx sql`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from vidx.cli_options import duration, instant, number, output_options, store_option
from vidx.config import SearchOptions, default_store
from vidx.errors import InputError

if TYPE_CHECKING:
    from vidx.export._media import Media
    from vidx.schema.records import Answer


@click.command()
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
@store_option
@click.option(
    "--like", multiple=True, metavar="FILE[@SECONDS]", help="Look for what is like a picture, a video, or a clip of it."
)
@click.option("--taught", multiple=True, metavar="LABEL", help="Look for what `vidx teach` taught.")
@click.option("--not", "unwanted", multiple=True, metavar="TEXT", help="Look less for what this describes.")
@click.option("--then", multiple=True, metavar="TEXT", help="Followed, in the same video, by what this describes.")
@click.option(
    "--within",
    "within_s",
    default="30s",
    show_default=True,
    metavar="TIME",
    callback=duration,
    help="At most so long between an event and the next of --then.",
)
@click.option("--encoder", help="Search what this encoder, or space, indexed.  [default: the store's]")
@click.option("--rerank", type=click.IntRange(0, 1000), default=0, help="Score the best N again from their frames.")
@click.option("--where", metavar="SQL", help='Only clips for which this holds, as "duration_s > 60".')
@click.option("--tag-set", metavar="NAME", help="Tags that label and probability are of in --where.  [default: newest]")
@click.option("--after", metavar="DATE", callback=instant, help="Only clips recorded at or after this date and time.")
@click.option("--before", metavar="DATE", callback=instant, help="Only clips recorded before this date and time.")
@click.option(
    "--min-score",
    type=float,
    callback=number,
    metavar="Z",
    help="Only hits at least Z standard deviations above the mean clip for this query.",
)
@click.option("--dedupe", is_flag=True, help="Of hits that show the same, only the best.")
@click.option("-k", type=click.IntRange(1, 10_000), default=10, show_default=True, help="How many hits.")
@click.option(
    "--by", type=click.Choice(["moment", "clip", "video"]), default="moment", show_default=True, help="What a hit is."
)
@output_options("table, json, csv, parquet, m3u, edl or otio")
@click.option("--tag", metavar="LABEL", help="Give the hits this label, in the set of tags `searches`.")
@click.option("--sheet", type=click.Path(path_type=Path), help="Also write a contact sheet to this PNG file.")
@click.option("--cut", "cut_into", type=click.Path(path_type=Path), metavar="DIR", help="Also cut each hit into DIR.")
@click.option("--cut-copy", is_flag=True, help="Cut without encoding again, from the key frame before.")
@click.option(
    "--handles",
    "handles_s",
    type=click.FloatRange(0, 3600),
    default=0,
    callback=number,
    metavar="SECONDS",
    help="More of the video around each hit, for m3u, edl, otio and --cut.",
)
def search(
    texts: tuple[str, ...],
    store_path: Path | None,
    format_name: str | None,
    out: Path | None,
    sheet: Path | None,
    cut_into: Path | None,
    cut_copy: bool,
    handles_s: float,
    **chosen: Any,
) -> int:
    """Find moments by descriptions in words, by examples, by labels, or list what passes a filter.

    \b
      vidx search "a person climbing stairs"
      vidx search "a dog" "on a beach" --not "people" --after 2024-05-01
      vidx search "a person enters a room" --then "sits down" --within 30s
      vidx search --where "label = 'climbing stairs' AND probability > 0.8"
    """
    from vidx.export._choice import choose
    from vidx.export._media import TimelineOptions, media_of
    from vidx.plugins import load
    from vidx.schema.snapshot import Snapshot
    from vidx.schema.store import Store
    from vidx.search.query import check_asked
    from vidx.search.run import search as run_search

    chosen_format = choose(format_name, out, "to_text", "write", "to_timeline", terminal=sys.stdout.isatty())
    if cut_copy and cut_into is None:
        raise InputError("--cut-copy says how to cut, and nothing is cut", hint="name a folder with --cut DIR")
    if handles_s and cut_into is None and not hasattr(chosen_format, "to_timeline"):
        raise InputError("--handles is of --cut and of --format m3u, edl and otio", hint="leave it out")
    if sheet is not None and (sheet.suffix.lower() != ".png" or not sheet.absolute().parent.is_dir()):
        raise InputError(f"can't write {sheet}", hint="--sheet takes a .png file in a folder that exists")
    options = SearchOptions(**chosen, thumbnails=sheet is not None)
    check_asked(texts, options)  # before the store: a command that asks for nothing makes no sense with any
    store = Store.open(store_path or default_store())
    answer = run_search(store, texts, options)
    for note in answer.notes:
        click.echo(note, err=True)
    media = {}
    if cut_into is not None or hasattr(chosen_format, "to_timeline"):
        media = media_of(Snapshot(store), [hit.video_id for hit in answer.hits])
    with _opened(out) as file:
        if hasattr(chosen_format, "to_text"):
            file.write(chosen_format.to_text(answer).encode("utf-8", "backslashreplace") + b"\n")
        elif hasattr(chosen_format, "to_timeline"):
            file.write(chosen_format.to_timeline(answer, media, TimelineOptions(handles_s=handles_s)))
        else:
            from vidx.export._hits import hit_rows

            chosen_format.write(hit_rows(answer), file)
    if sheet is not None:
        load("export", "sheet").to_file(answer, sheet)
    return _cut(answer, media, cut_into, copy=cut_copy, handles_s=handles_s) if cut_into is not None else 0


def _cut(answer: Answer, media: Mapping[str, Media], folder: Path, *, copy: bool, handles_s: float) -> int:
    """Cut the hits and say what came of it; 1 where any failed."""
    from vidx.export import shown
    from vidx.plugins import load

    made = load("export", "cut").cut(answer, media, folder, copy=copy, handles_s=handles_s)
    for each in made:
        if each.reason is not None:
            click.echo(shown(f"failed: {each.hit.path}: {each.reason}"), err=True)
        elif each.damage is not None:
            click.echo(shown(f"damaged: {each.path}: {each.damage}"), err=True)
        elif copy:
            click.echo(shown(f"{each.path}: {each.start_s:.3f} s to {each.end_s:.3f} s"), err=True)
    failed = sum(each.reason is not None for each in made)
    click.echo(f"{len(made) - failed} of {len(made)} hits cut into {shown(str(folder))}", err=True)
    return 1 if failed else 0


@click.command()
@click.argument("query")
@store_option
@output_options("table, json, csv or parquet")
def sql(query: str, store_path: Path | None, format_name: str | None, out: Path | None) -> None:
    """Run one SELECT over what the store holds.

    \b
    Views: files, videos, indexed, newest, clips, thumbnails, runs, tags.
      vidx sql "SELECT path, duration_s FROM files JOIN videos USING (video_id)"
    """
    from vidx.export._choice import choose
    from vidx.schema.snapshot import Snapshot
    from vidx.schema.sql import select
    from vidx.schema.store import Store

    chosen_format = choose(format_name, out, "write", terminal=sys.stdout.isatty())
    snapshot = Snapshot(Store.open(store_path or default_store()))
    rows = select(snapshot, query, getattr(chosen_format, "CELLS", "values"))
    with _opened(out) as file:
        chosen_format.write(rows, file)


@contextmanager
def _opened(out: Path | None) -> Iterator[BinaryIO]:
    """Where results go: the file, which appears when it is whole, or standard output."""
    from vidx.export import written

    if out is not None:
        with written(out) as file:
            yield file
        return
    yield sys.stdout.buffer
    sys.stdout.buffer.flush()
