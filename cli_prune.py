"""`vidx prune`."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidx.cli_options import store_option
from vidx.config import default_store
from vidx.errors import InputError

if TYPE_CHECKING:
    from vidx.indexer.prune import Prunable, Share
    from vidx.schema.store import Store

_NAMES = 3  # files shown of each root


@click.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@store_option
@click.option("--offline-too", is_flag=True, help="Also files below FOLDER whose drive may only be unplugged.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option("--dry-run", is_flag=True, help="Tell what would be dropped, and drop nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def prune(
    folder: Path | None, store_path: Path | None, offline_too: bool, yes: bool, dry_run: bool, as_json: bool
) -> None:
    """Drop what is stored of files that have vanished (below FOLDER), after asking.

    \b
      vidx prune --dry-run
      vidx prune /archive/2019
    Files of a drive that is not there are kept; `vidx prune FOLDER --offline-too` drops those, too.
    """
    from vidx.indexer.prune import prunable
    from vidx.indexer.prune import prune as drop
    from vidx.schema.store import Store

    if offline_too and folder is None:
        raise InputError("--offline-too needs a FOLDER", hint="name the root that will not come back")
    folder = None if folder is None else Path(os.path.abspath(folder))
    store = Store.open(store_path or default_store())
    found = prunable(store, folder, offline_too=offline_too)
    if not as_json:
        _print(found)
    dropped = bool(found) and not dry_run and (yes or _is_confirmed())
    if dropped:
        found = drop(store, found, folder, offline_too=offline_too)
        _keep_up(store)
        click.echo(f"dropped {_sum(found.total(), len(found.paths))}", err=True)
    if as_json:
        click.echo(json.dumps(_fields(store, found, dropped)))


def _is_confirmed() -> bool:
    if not sys.stdin.isatty():
        raise InputError("nobody is there to ask whether to drop them", hint="give --yes, or --dry-run to look")
    return click.confirm("Drop them?", err=True)


def _keep_up(store: Store) -> None:
    """Build the indexes again in which too much is dead by now."""
    from vidx.search.rebuild import index_folder, keep_up

    for name in store.spaces():
        space = store.space(name)
        if index_folder(store, space).exists():
            keep_up(store, space, partial(click.echo, err=True))


def _print(found: Prunable) -> None:
    from vidx.export import shown

    if not found:
        click.echo("nothing to drop")
    else:
        click.echo(f"{_sum(found.total(), len(found.paths))}:")
    for root, share in found.shares.items():
        click.echo(f"  {'without any path' if root is None else shown(root)}: {_sum(share, len(share.paths))}")
        for path in share.paths[:_NAMES]:
            click.echo(f"    {shown(path)}")
        if (more := len(share.paths) - _NAMES) > 0:
            click.echo(f"    and {more} more")
    for root, n_files in found.offline.items():
        click.echo(
            f"kept, for the drive may be unplugged: {n_files} files of {shown(root)};"
            " `vidx prune FOLDER --offline-too` drops them",
            err=True,
        )


def _sum(share: Share, n_files: int) -> str:
    return f"{n_files} files, {share.videos} videos, {share.clips} clips, {share.hours:.2f} hours"


def _fields(store: Store, found: Prunable, dropped: bool) -> dict[str, Any]:
    def fields(share: Share, n_files: int) -> dict[str, Any]:
        return {"files": n_files, "videos": share.videos, "clips": share.clips, "hours": round(share.hours, 3)}

    roots = [{"root": root, **fields(share, len(share.paths))} for root, share in found.shares.items()]
    return {
        "store": str(store.path),
        "dropped": dropped,
        **fields(found.total(), len(found.paths)),
        "roots": roots,
        "offline": [{"root": root, "files": n_files} for root, n_files in found.offline.items()],
    }
