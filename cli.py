"""The command line: parse, call one function, print. Heavy imports happen inside the command that needs them."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import click

from vidx import __version__
from vidx.cli_encoders import encoders
from vidx.cli_options import gibibytes, output_options, print_progress, seconds, store_option
from vidx.config import IndexOptions, SearchOptions, default_store
from vidx.errors import InputError, Interrupted, VidxError

_STRICT = 3  # exit code of `--strict` where files failed


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vidx")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def vidx(debug: bool) -> None:
    """Make a private video archive searchable by what happens in it, offline.

    \b
      vidx index /archive
      vidx search "a person climbing stairs"
    """


vidx.add_command(encoders)


@vidx.command()
@click.argument("folder", type=click.Path(path_type=Path))
@store_option
@click.option("--encoder", help="Encoder to use.  [default: the store's; see `vidx encoders`]")
@click.option(
    "--weights",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Weights brought by hand; a text tower of its own second.",
)
@click.option("--offline", is_flag=True, help="Fetch nothing.")
@click.option("--clip", "clip_s", type=float, callback=seconds, help="Length of a clip in seconds.  [default: 10]")
@click.option(
    "--stride", "stride_s", type=float, callback=seconds, help="A clip every so many seconds.  [default: --clip]"
)
@click.option("--decoder", default="pyav", show_default=True, help="Decoder to try first: pyav or decord.")
@click.option("--decode", type=click.Choice(["exact"]), default="exact", show_default=True, help="Which frames count.")
@click.option("--workers", type=click.IntRange(1, 256), default=None, help="Decode processes.  [default: one per core]")
@click.option(
    "--stall", "stall_s", type=float, default=60, callback=seconds, help="Kill a decoder silent for so many seconds."
)
@click.option(
    "--memory",
    "memory_bytes",
    type=click.FloatRange(1, 1024),
    default=4,
    callback=gibibytes,
    help="GB of address space for each decode process.",
)
@click.option("--thumbnails/--no-thumbnails", default=True, help="Store small pictures.  [default: yes]")
@click.option("--follow", is_flag=True, help="Follow links to folders outside FOLDER.")
@click.option("--retry-failed", is_flag=True, help="Try files again that failed before.")
@click.option("--break-lock", is_flag=True, help="Take over a lock that another host left behind.")
@click.option("--strict", is_flag=True, help="Exit with 3 if any file failed or is partial.")
@click.option("--json", "as_json", is_flag=True, help="One JSON event per line on standard output.")
def index(folder: Path, store_path: Path | None, strict: bool, offline: bool, as_json: bool, **chosen: Any) -> int:
    """Index every video below FOLDER; run it again to pick up what is new."""
    from vidx.console import print_events, show_progress
    from vidx.indexer.run import check_encoder, index_archive, is_new
    from vidx.indexer.walk import absolute_root, is_online, no_files
    from vidx.schema.store import Store

    options = IndexOptions(**chosen)
    root, path = absolute_root(folder), store_path or default_store()
    if not path.exists() and not is_online(root):
        raise no_files(root)
    if path.exists():
        Store.create(path)  # which refuses a folder of something else
    if options.encoder is None and is_new(path):
        from vidx.encoders._fetch import default_encoder

        tell = partial(click.echo, err=True)
        options = replace(options, encoder=default_encoder(tell, print_progress, offline=offline))
    check_encoder(path, options)  # a run that can't be must not leave an empty store behind
    events = index_archive(root, Store.create(path), options)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what is finished is kept
    try:
        counts = (print_events if as_json else show_progress)(events, root)
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted; what was finished is kept", hint="run the same command again to go on"
        ) from None
    return _STRICT if strict and counts["failed"] + counts["partial"] else 0


@vidx.command()
@click.argument("text", required=False)
@store_option
@click.option(
    "--like", multiple=True, metavar="FILE[@SECONDS]", help="Look for what is like a picture, a video, or a clip of it."
)
@click.option("--not", "unwanted", multiple=True, metavar="TEXT", help="Look less for what this describes.")
@click.option("--encoder", help="Search what this encoder, or space, indexed.  [default: the store's]")
@click.option("--rerank", type=click.IntRange(0, 1000), default=0, help="Score the best N again from their frames.")
@click.option("--where", metavar="SQL", help='Only clips for which this holds, as "duration_s > 60".')
@click.option("-k", type=click.IntRange(1, 10_000), default=10, show_default=True, help="How many hits.")
@click.option(
    "--by", type=click.Choice(["moment", "clip", "video"]), default="moment", show_default=True, help="What a hit is."
)
@output_options
@click.option("--sheet", type=click.Path(path_type=Path), help="Also write a contact sheet to this PNG file.")
def search(
    text: str | None,
    store_path: Path | None,
    format_name: str | None,
    out: Path | None,
    sheet: Path | None,
    **chosen: Any,
) -> None:
    """Find moments by a description in words, by an example, or by both."""
    from vidx.export._choice import choose
    from vidx.plugins import load
    from vidx.schema.store import Store
    from vidx.search.query import check_asked
    from vidx.search.run import search as run_search

    chosen_format = choose(format_name, out, "to_text", "write", terminal=sys.stdout.isatty())
    if sheet is not None and (sheet.suffix.lower() != ".png" or not sheet.absolute().parent.is_dir()):
        raise InputError(f"can't write {sheet}", hint="--sheet takes a .png file in a folder that exists")
    options = SearchOptions(**chosen, thumbnails=sheet is not None)
    check_asked(text, options)  # before the store: a command that asks for nothing makes no sense with any
    answer = run_search(Store.open(store_path or default_store()), text, options)
    with _opened(out) as file:
        if hasattr(chosen_format, "to_text"):
            file.write(chosen_format.to_text(answer).encode("utf-8", "backslashreplace") + b"\n")
        else:
            from vidx.export._hits import hit_rows

            chosen_format.write(hit_rows(answer), file)
    if sheet is not None:
        load("export", "sheet").to_file(answer, sheet)


@vidx.command()
@click.argument("query")
@store_option
@output_options
def sql(query: str, store_path: Path | None, format_name: str | None, out: Path | None) -> None:
    """Run one SELECT over what the store holds.

    \b
    Views: files, videos, indexed, newest, clips, thumbnails, runs.
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


@vidx.command()
@store_option
@click.option(
    "--failed", is_flag=True, help="List the files that failed or are partial, with reason and first bad time."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(store_path: Path | None, failed: bool, as_json: bool) -> None:
    """Count what the store holds."""
    from vidx.export import aligned
    from vidx.export.table import trouble_line
    from vidx.schema.store import Store
    from vidx.search.status import status as read_status
    from vidx.search.status import troubles

    store = Store.open(store_path or default_store())
    if not failed:
        facts = read_status(store)
        click.echo(json.dumps(facts) if as_json else aligned(facts))
    elif as_json:
        click.echo(json.dumps({"failed": [asdict(trouble) for trouble in troubles(store)]}))
    else:
        for trouble in troubles(store):
            click.echo(trouble_line(trouble))


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


def main() -> None:
    """Entry point: every error a user can meet becomes one line on standard error and an exit code."""
    debug = "--debug" in sys.argv[1:2]
    if not debug and sys.stderr is not None:  # which it is where standard error is closed
        _mute_libraries()
    # NumPy's products here are small, and its threads spin for one another, on a busy machine longer than they work.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        code = vidx(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except VidxError as error:
        _fail(f"{error}; {error.hint}" if error.hint else str(error), error.exit_code, debug)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code, debug)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted", Interrupted.exit_code, debug)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left; nobody is there to be told
        sys.exit(1)
    except OSError as error:
        _fail(f"{error.filename or 'the output'}: {error.strerror or error}", 1, debug)
    except Exception as error:
        _fail(f"unexpected {type(error).__name__}: {error}; `vidx --debug ...` shows where", 1, debug)


def _mute_libraries() -> None:
    """Keep what libraries print past Python, as a panic of Rust on a full disk, from standard error."""
    ours = os.fdopen(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    sys.stderr = ours


def _fail(message: str, code: int, debug: bool) -> None:
    if debug:
        import traceback

        traceback.print_exc()
    from vidx.export import shown

    click.echo("Error: " + shown(" ".join(message.split())), err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
