"""`vidx encoders`: list them, bring their weights, choose a store's, compare one with the original."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidx.cli_options import print_progress, store_option
from vidx.config import default_store
from vidx.errors import VidxError

if TYPE_CHECKING:
    from vidx.encoders._reference import Compared

_BEYOND = 1  # exit code of `check` where not all is as it should be


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def encoders(context: click.Context, as_json: bool) -> None:
    """List the encoders: size, frames, dimension, licence, and whether the weights are here."""
    if context.invoked_subcommand is not None:
        return
    listed = _listed()
    if as_json:
        click.echo(json.dumps({"encoders": listed}))
        return
    for encoder in (encoder for encoder in listed if not encoder["classifies"]):
        click.echo(_row(encoder))
    click.echo(
        f"{'clip:MODEL/PRETRAINED':43} {'':12} any model that open_clip names with its weights; the mean over frames"
    )
    click.echo("classifiers, which tell their own classes and can't be searched with:")
    for encoder in (encoder for encoder in listed if encoder["classifies"]):
        click.echo(_row(encoder))


def _row(encoder: dict[str, Any]) -> str:
    marks = [*(["default"] if encoder["default"] else []), "here" if encoder["here"] else ""]
    size = f"{encoder['megabytes']:6.0f} MB  {encoder['dim']:4} {'classes' if encoder['classifies'] else 'dim'}"
    return f"{encoder['name']:43} {' '.join(marks):12} {size}  {encoder['licence']:10}  {encoder['description']}"


def _listed() -> list[dict[str, Any]]:
    from vidx.encoders import DEFAULT, specs

    return [
        {
            "name": spec.name,
            "default": spec.name == DEFAULT,
            "here": spec.is_here,
            "megabytes": round(sum(file.size_bytes for file in spec.weights) / 1e6, 1),
            "frames": spec.space.frames,
            "side_px": spec.space.preprocess.crop_px,
            "dim": spec.space.dim,
            "licence": spec.licence,
            "description": spec.description,
            "classifies": spec.classifies,
            "templates": spec.templates,
            "addresses": [file.address or file.source for file in spec.weights],
        }
        for spec in sorted(specs().values(), key=lambda spec: (spec.name != DEFAULT, not spec.is_here))
    ]


@encoders.command()
@click.argument("name")
def fetch(name: str) -> None:
    """Bring the weights of encoder NAME to this machine; run again to go on after a break."""
    from vidx.encoders import spec
    from vidx.encoders._fetch import fetch as bring

    for path in bring(spec(name), print_progress):
        click.echo(path)


@encoders.command()
@click.argument("name")
@store_option
def use(name: str, store_path: Path | None) -> None:
    """Make NAME, an encoder or a space, the one that the store is searched and indexed with."""
    from vidx.schema.store import Store
    from vidx.schema.writer import writing

    store = Store.open(store_path or default_store())
    space = store.find_space(name)
    with writing(store) as writer:
        writer.use_space(space)
    click.echo(f"{store.path} now uses {space.encoder} ({space.name})")


@encoders.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="One JSON object per output, and one for all.")
def check(files: tuple[Path, ...], as_json: bool) -> int:
    """Run reference FILES and compare with what the original implementation returned.

    \b
    A reference file is safetensors: state.* holds weights under the original's names, input.* what the network was
    given, output.* what it returned. Metadata: model (the family), checkpoint_section (where in a released file the
    weights lie), config (JSON with what tensors can't tell: T, chunks, views, num_prompts ...).
    """
    from vidx.encoders._reference import compare

    counts = {"files": len(files), "outputs": 0, "beyond_tolerance": 0, "not_compared": 0, "failed": 0}
    for path in files:
        try:
            for compared in compare(path):
                counts["outputs"] += 1
                counts["not_compared"] += bool(compared.not_compared)
                counts["beyond_tolerance"] += not compared.within and not compared.not_compared
                click.echo(_json_line(path, compared) if as_json else _line(path, compared))
        except VidxError as error:  # the other files can still be compared
            counts["failed"] += 1
            refused = {"file": str(path), "error": str(error), "hint": error.hint}
            click.echo(json.dumps(refused) if as_json else f"{path.stem}: {error}; {error.hint}")
    if as_json:
        click.echo(json.dumps(counts))
    else:
        within = counts["outputs"] - counts["beyond_tolerance"] - counts["not_compared"]
        click.echo(
            f"{counts['files']} files, {counts['outputs']} outputs: {within} within tolerance,"
            f" {counts['beyond_tolerance']} beyond, {counts['not_compared']} not compared;"
            f" {counts['failed']} files failed"
        )
    bad = counts["beyond_tolerance"] + counts["not_compared"] + counts["failed"]
    return _BEYOND if bad else 0


def _line(path: Path, compared: Compared) -> str:
    if compared.not_compared:
        return f"{path.stem}  {compared.output}: not compared: {compared.not_compared}"
    verdict = "ok" if compared.within else "BEYOND"
    return f"{path.stem}  {compared.output}: {compared.difference:.2e} (at most {compared.tolerance:.2e}) {verdict}"


def _json_line(path: Path, compared: Compared) -> str:
    facts = {"file": str(path), **asdict(compared), "within": compared.within}
    for name in ("difference", "tolerance"):
        facts[name] = facts[name] if math.isfinite(facts[name]) else None  # JSON has no other numbers
    return json.dumps(facts)
