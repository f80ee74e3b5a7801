"""`vidx config`: what a store's config.toml says, and changes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from vidx.cli_options import store_option
from vidx.config import default_store

_root_option = click.option(
    "--root", type=click.Path(path_type=Path), help="Of this folder and those below.  [default: of all folders]"
)


@click.group(invoke_without_command=True)
@store_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def config(context: click.Context, store_path: Path | None, as_json: bool) -> None:
    """Show the options that `vidx index` takes from the store's config.toml, by folder."""
    context.obj = store_path or default_store()
    if context.invoked_subcommand is not None:
        return
    from vidx.settings import read_settings

    settings = read_settings(context.obj)
    by_root = {root: settings.of(root)[1] for root in settings.by_root}
    if as_json:
        click.echo(json.dumps({"file": str(settings.path), "index": settings.everywhere, "roots": by_root}))
        return
    click.echo(_as_toml(str(settings.path), settings.everywhere, by_root), nl=False)


def _as_toml(path: str, everywhere: dict[str, Any], by_root: dict[str, dict[str, Any]]) -> str:
    import tomlkit

    document = tomlkit.document()
    document.add(tomlkit.comment(path))
    document["index"] = everywhere
    if by_root:
        document["roots"] = by_root
    return document.as_string()


@config.command("set")
@store_option
@_root_option
@click.argument("key")
@click.argument("values", nargs=-1, required=True, metavar="VALUE...")
@click.pass_obj
def set_(store: Path, store_path: Path | None, root: Path | None, key: str, values: tuple[str, ...]) -> None:
    """Give option KEY of `vidx index` a VALUE; include and exclude take several."""
    from vidx.indexer.walk import absolute_root
    from vidx.schema.store import Store
    from vidx.settings import set_option

    opened = Store.create(store_path or store)
    set_option(opened.path, root and absolute_root(root), key, values)


@config.command()
@store_option
@_root_option
@click.argument("key")
@click.pass_obj
def unset(store: Path, store_path: Path | None, root: Path | None, key: str) -> None:
    """Take option KEY out of the file."""
    from vidx.indexer.walk import absolute_root
    from vidx.schema.store import Store
    from vidx.settings import unset_option

    opened = Store.open(store_path or store)
    unset_option(opened.path, root and absolute_root(root), key)
