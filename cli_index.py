"""`vidx index` and `vidx verify`."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from vidx.cli_options import gibibytes, print_progress, seconds, store_option
from vidx.config import default_store
from vidx.errors import InputError, Interrupted, StoreLocked

_STRICT = 3  # exit code of `--strict` where files failed
_SETTLE_S = 10.0
_ONCE = {"retry_failed", "break_lock"}  # options that are of the first round of --watch


@click.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@store_option
@click.option(
    "--encoder",
    multiple=True,
    help="Encoder to use; several share one decoding.  [default: the store's; see `vidx encoders`]",
)
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
@click.option(
    "--segment",
    type=click.Choice(["windows", "shots"]),
    help="Cut by the clock, or where another shot begins.  [default: windows]",
)
@click.option(
    "--skip-still/--no-skip-still",
    default=False,
    help="Encode no clip that shows no change: for fixed cameras.  [default: no]",
)
@click.option("--decoder", default="pyav", show_default=True, help="Decoder to try first: pyav, decord or torchcodec.")
@click.option(
    "--decode",
    type=click.Choice(["exact", "fast", "keyframes"]),
    help="Which frames to take: those on screen, or near ones for less work.  [default: exact]",
)
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
@click.option("--follow/--no-follow", default=False, help="Follow links to folders outside FOLDER.  [default: no]")
@click.option("--include", multiple=True, metavar="PATTERN", help="Index only what this fits, as in .gitignore.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave out what this fits, as in .gitignore.")
@click.option("--retry-failed", is_flag=True, help="Try files again that failed before.")
@click.option("--break-lock", is_flag=True, help="Take over a lock that another host left behind.")
@click.option("--rebuild-index", is_flag=True, help="Build the search index again; without FOLDER, nothing else.")
@click.option(
    "--tier",
    help="Of --rebuild-index and of builds that come by themselves: flat or ivf.  [default: by the number of clips]",
)
@click.option("--roll-back-index", is_flag=True, help="Go back to the search index before; nothing else.")
@click.option("--strict", is_flag=True, help="Exit with 3 if any file failed or is partial.")
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C, and index what comes, once it is whole.")
@click.option(
    "--settle",
    "settle_s",
    type=float,
    callback=seconds,
    help="Of --watch: a file is whole when it stays as it is for so many seconds.  [default: 10]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON event per line on standard output.")
def index(
    folder: Path | None,
    store_path: Path | None,
    strict: bool,
    offline: bool,
    as_json: bool,
    rebuild_index: bool,
    tier: str | None,
    roll_back_index: bool,
    watch: bool,
    settle_s: float | None,
    **chosen: Any,
) -> int:
    """Index every video below FOLDER; run it again to pick up what is new."""
    path = store_path or default_store()
    if tier and not rebuild_index:
        raise InputError("--tier is of --rebuild-index", hint="give both")
    if roll_back_index:
        if folder is not None or rebuild_index:
            raise InputError("--roll-back-index does nothing else", hint="give it alone")
        return _roll_back(path, chosen["encoder"] or (None,))
    if settle_s and not watch:
        raise InputError("--settle is of --watch", hint="give both")
    if watch:
        if folder is None or rebuild_index or strict:
            raise InputError("--watch is for a FOLDER, and goes on", hint="leave out --rebuild-index and --strict")
        _watch(folder, path, _given(chosen), offline, as_json, settle_s or _SETTLE_S)
    counts, spaces = {"failed": 0, "partial": 0}, chosen["encoder"] or (None,)
    if folder is not None:
        counts, spaces = _run(folder, path, _given(chosen), offline, as_json)
    elif not rebuild_index:
        raise InputError("nothing to index", hint="name a FOLDER, or give --rebuild-index")
    _bring_index_up_to_date(path, spaces, tier, anyway=rebuild_index)
    return _STRICT if strict and counts["failed"] + counts["partial"] else 0


def _given(chosen: dict[str, Any]) -> dict[str, Any]:
    """Those options that stand on the command line; all others may come from the store's file."""
    source = click.get_current_context().get_parameter_source
    return {name: value for name, value in chosen.items() if source(name) is ParameterSource.COMMANDLINE}


def _watch(folder: Path, path: Path, given: dict[str, Any], offline: bool, as_json: bool, settle_s: float) -> NoReturn:
    """Index a folder, and again whenever something has come, changed or gone. Raises Interrupted, and what `_run` does.

    While another process writes to the store, a later round waits for it.
    """
    from vidx.export import shown
    from vidx.indexer.walk import absolute_root, no_files
    from vidx.indexer.watch import SameEncoders, Settling, has_files, is_remote, rounds

    root, build = absolute_root(folder), SameEncoders()
    settling = Settling(settle_s, is_local=not is_remote(root))
    tell = partial(click.echo, err=True)
    if not root.is_dir() and not has_files(root, path):
        raise no_files(root)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    is_first = True
    try:
        for _ in rounds(root, path, settling, tell):
            try:
                if has_files(root, path):  # a folder that nothing has come to yet is no error here
                    _, spaces = _run(folder, path, given, offline, as_json, takes=settling.is_settled, build=build)
                    _bring_index_up_to_date(path, spaces, None, anyway=False)
                    given = {name: value for name, value in given.items() if name not in _ONCE}
                if as_json:
                    click.echo(json.dumps({"event": "watching"}))
                elif is_first:
                    tell(f"watching {shown(str(root))}; Ctrl-C ends it")
            except StoreLocked as error:
                if is_first:
                    raise
                tell(f"{error}; this is tried again")
                settling.look_again()
            is_first = False
    except KeyboardInterrupt:
        raise _interrupted() from None
    raise AssertionError("there is always another round")


def _interrupted() -> Interrupted:
    return Interrupted("interrupted; what was finished is kept", hint="run the same command again to go on")


def _run(
    folder: Path, path: Path, given: dict[str, Any], offline: bool, as_json: bool, **hooks: Any
) -> tuple[dict[str, int], list[str]]:
    """Index a folder; returns the account, and the names of the spaces. `hooks` are of `index_archive`."""
    from vidx.console import print_events, show_progress
    from vidx.indexer.run import check_encoders, index_archive, is_new
    from vidx.indexer.walk import absolute_root, is_online, no_files
    from vidx.schema.store import Store
    from vidx.settings import index_options

    root = absolute_root(folder)
    if not path.exists() and not is_online(root):
        raise no_files(root)
    options = index_options(path, root, given)
    if path.exists():
        Store.create(path)  # which refuses a folder of something else
    if options.encoder is None and is_new(path):
        from vidx.encoders._fetch import default_encoder

        if options.weights:
            raise InputError("--weights for a new store needs its --encoder", hint="name the encoder they are of")
        tell = partial(click.echo, err=True)
        options = replace(options, encoder=(default_encoder(tell, print_progress, offline=offline),))
    spaces = check_encoders(path, options)  # a run that can't be must not leave an empty store behind
    events = index_archive(root, Store.create(path), options, **hooks)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what is finished is kept
    try:
        return (print_events if as_json else show_progress)(events, root, options), [space.name for space in spaces]
    except KeyboardInterrupt:
        raise _interrupted() from None


def _bring_index_up_to_date(
    path: Path, spaces_or_encoders: Sequence[str | None], tier: str | None, *, anyway: bool
) -> None:
    from vidx.schema.store import Store
    from vidx.search.query import settled_space
    from vidx.search.rebuild import keep_up, rebuild, told

    store, tell = Store.open(path), partial(click.echo, err=True)
    spaces = {space.name: space for space in (settled_space(store, named) for named in spaces_or_encoders)}
    for space in spaces.values():
        if anyway:
            tell(told(rebuild(store, space, tier=tier)))
        else:
            keep_up(store, space, tell)


def _roll_back(path: Path, encoders: Sequence[str | None]) -> int:
    from vidx.schema.store import Store
    from vidx.search.query import settled_space
    from vidx.search.rebuild import roll_back

    store = Store.open(path)
    for space in [settled_space(store, encoder) for encoder in encoders]:
        click.echo(f"searches use {roll_back(store, space)} again", err=True)
    return 0


@click.command()
@store_option
@click.option("--index", "with_index", is_flag=True, help="Also the search index: files, vectors, recall.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def verify(store_path: Path | None, with_index: bool, as_json: bool) -> int:
    """Read all clips of the store and say what is wrong with them; exit code 1 if anything is."""
    from vidx.schema.snapshot import Snapshot
    from vidx.schema.store import Store
    from vidx.schema.verify import clip_troubles
    from vidx.search.verify import index_troubles

    store = Store.open(store_path or default_store())
    snapshot = Snapshot(store)
    troubles: list[str] = []
    for name in store.spaces():
        space = store.space(name)
        troubles += clip_troubles(snapshot, space)
        if with_index:
            troubles += index_troubles(snapshot, space)
    if as_json:
        click.echo(json.dumps({"store": str(store.path), "troubles": troubles}))
    else:
        click.echo("\n".join(troubles) or f"{store.path}: all is as it should be")
    return 1 if troubles else 0
