"""`vidx tag`."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidx.cli_options import number, store_option
from vidx.config import TagOptions, default_store
from vidx.errors import InputError

if TYPE_CHECKING:
    from vidx.schema.store import Store
    from vidx.search.tags import Tagged

_FILE = click.Path(path_type=Path)
_TOLD = 10  # labels that the account names


@click.command()
@store_option
@click.option("--labels", metavar="SET|FILE", help="kinetics400, kinetics600, ucf101, hmdb51, activitynet, or a file.")
@click.option("--model", type=_FILE, metavar="FOLDER", help="Labels of a classifier that `vidx train` made.")
@click.option("--taught", multiple=True, metavar="LABEL", help="Also a label of `vidx teach`.")
@click.option("--set", "tag_set", metavar="NAME", help="Keep the rows under this name.  [default: that of the labels]")
@click.option(
    "--level",
    "levels",
    multiple=True,
    type=click.Choice(["clip", "segment", "video"]),
    default=("clip",),
    show_default=True,
    help="What gets labels.",
)
@click.option(
    "--mode",
    type=click.Choice(["single", "multi"]),
    default="single",
    show_default=True,
    help="Labels compete, or each stands by itself.",
)
@click.option("--top", type=click.IntRange(1, 1000), default=5, show_default=True, help="At most so many labels each.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    callback=number,
    metavar="P",
    help="Least probability.  [default: calibrated, else 0, and 0.5 for segments and multi]",
)
@click.option("--background", type=_FILE, metavar="FILE", help="Texts for what is none of the labels, one a line.")
@click.option("--template", "templates", multiple=True, metavar="TEXT", help="Put labels where this has {}.")
@click.option("--encoder", help="Use what this encoder, or space, indexed.  [default: the store's]")
@click.option("--exact", is_flag=True, help="Decode every clip again and score as X-CLIP's authors do.")
@click.option("--calibrate", type=_FILE, metavar="CSV", help="Learn probabilities and thresholds from this sample.")
@click.option(
    "--method", type=click.Choice(["platt", "isotonic"]), default="platt", show_default=True, help="How to calibrate."
)
@click.option(
    "--precision",
    type=click.FloatRange(0.01, 1),
    callback=number,
    metavar="P",
    help="Thresholds for this share of right labels.  [default: for the best F1]",
)
@click.option("--reliability", type=_FILE, metavar="PNG", help="Draw how well probabilities agree with the sample.")
@click.option("--uncalibrated", is_flag=True, help="Leave out what --calibrate learnt before.")
@click.option("-o", "out", type=_FILE, help="Also write the rows to FILE.parquet, or to a folder by label.")
@click.option("--webvtt", type=_FILE, metavar="DIR", help="Also write a WebVTT file for each video into DIR.")
@click.option("--diff", metavar="OLD", help="Tell what changed since an older set, or an older FILE.parquet.")
@click.option("--changes", type=_FILE, metavar="FILE", help="Also write what --diff finds, as .csv or .parquet.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def tag(
    store_path: Path | None,
    out: Path | None,
    webvtt: Path | None,
    diff: str | None,
    changes: Path | None,
    as_json: bool,
    uncalibrated: bool,
    **chosen: Any,
) -> None:
    """Label the whole archive in bulk, from stored vectors, or from frames by a model of one's own.

    \b
      vidx tag --labels kinetics400 -o tags.parquet
      vidx tag --labels mine.csv --mode multi --calibrate sample.csv --precision 0.9
      vidx tag --labels mine.csv --diff mine
      vidx tag --model runs/my-movinet
      vidx search --where "label = 'climbing stairs' AND probability > 0.8"
    A sample for --calibrate has the columns path, label and, if wanted, start_s and end_s.
    """
    from vidx.export import written
    from vidx.export._choice import choose
    from vidx.schema.store import Store
    from vidx.schema.tag_tables import files_of
    from vidx.search.tag_diff import diff as compared
    from vidx.search.tags import tag as run_tag

    options = TagOptions(**chosen, calibrated=not uncalibrated)
    _check_out(out)
    if webvtt is not None and not {"clip", "segment"} & set(options.levels):
        raise InputError("WebVTT files are of clips or segments", hint="add --level segment")
    if webvtt is not None and not webvtt.is_dir() and (webvtt.exists() or not webvtt.absolute().parent.is_dir()):
        raise InputError(f"can't make the folder {webvtt}", hint="--webvtt takes a folder in one that exists")
    if changes is not None:
        if diff is None:
            raise InputError("--changes writes what --diff finds", hint="name an older set with --diff")
        if changes.suffix.lower() not in (".csv", ".parquet") or changes == out:
            raise InputError(f"can't write {changes}", hint="--changes takes another FILE.csv or FILE.parquet")
        changes_format = choose(None, changes, "write", terminal=False)
    store = Store.open(store_path or default_store())
    old = _rows_to_compare(store, diff) if diff is not None else []
    if options.labels is None and options.model is None and not options.taught and diff is not None:
        if options != TagOptions(tag_set=options.tag_set):
            raise InputError("without labels, --diff compares two sets as they are", hint="give --set alone with it")
        name, done = _set_to_compare(store, options.tag_set), None
    else:
        done = run_tag(store, options, _print_tagged)
        name = done.tag_set
    files = files_of(store, name)
    if done is not None and not as_json:
        _print_account(done)
    account = {} if done is None else asdict(done)
    if diff is not None:
        account["diff"] = _summary(old, files, quiet=as_json)
    if changes is not None:
        with written(changes) as file:
            changes_format.write(compared(old, files), file)
    if out is not None:
        _export(files, out)
    if webvtt is not None:
        from vidx.plugins import load

        account["webvtt"] = load("export", "webvtt").to_folder(files, webvtt)
        click.echo(f"{account['webvtt']} WebVTT files in {webvtt}", err=True)
    if as_json:
        click.echo(json.dumps(account, ensure_ascii=False))


def _check_out(out: Path | None) -> None:
    """Before the work, not after it."""
    if out is None:
        return
    if out.suffix and out.suffix.lower() != ".parquet":
        raise InputError(f"can't write {out}", hint="-o takes FILE.parquet or a new folder; `vidx sql` writes the rest")
    if (out.suffix and out.is_dir()) or not out.absolute().parent.is_dir():
        raise InputError(f"can't write {out}", hint="-o takes a file, or a folder, in a folder that exists")
    if not out.suffix and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"can't write into {out}", hint="name a new or empty folder")


def _export(files: list[Path], out: Path) -> None:
    from vidx.export import written
    from vidx.search.tag_folder import write_partitioned

    if not out.suffix:
        write_partitioned(files, out)
        return
    [only] = files  # a set is written as one
    with written(out) as file, open(only, "rb") as rows:
        shutil.copyfileobj(rows, file)


def _rows_to_compare(store: Store, named: str) -> list[Path]:
    """The rows of an older set, as they are before this run replaces them, or of a file or folder."""
    from vidx.schema.tag_tables import files_of
    from vidx.search.tag_diff import check_files

    path = Path(named)
    if named in store.tag_sets() or not path.exists():
        return files_of(store, named)
    files = sorted(path.glob("**/*.parquet")) if path.is_dir() else [path]
    check_files(files)
    return files


def _set_to_compare(store: Store, named: str | None) -> str:
    from vidx.schema.snapshot import Snapshot

    name = named or Snapshot(store).newest_tag_set()
    if name is None:
        raise InputError("there are no tags yet", hint="give --labels SET or FILE")
    return name


def _summary(old: list[Path], new: list[Path], *, quiet: bool) -> dict[str, Any]:
    from vidx.export import shown
    from vidx.search.tag_diff import diff, summary

    found = summary(diff(old, new))
    if not quiet:
        click.echo(f"since then: {found.added} added, {found.removed} removed, {found.changed} changed")
        for row in found.labels[:_TOLD]:
            click.echo(shown(f"  {row.label}: {row.added} added, {row.removed} removed, {row.changed} changed"))
    return asdict(found)


def _print_tagged(done: int, total: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r{done} of {total} clips labelled", nl=done == total, err=True)


def _print_account(done: Tagged) -> None:
    from vidx.export import shown

    for note in done.notes:
        click.echo(shown(note), err=True)
    click.echo(f"{done.tag_set}: {done.n_rows} rows for {done.n_clips} clips of {done.n_videos} videos")
    for level, n in done.unmatched.items():
        if level != "segment":
            click.echo(f"no match: {n} {level}s")
    if done.calibration is not None:
        before, after = done.calibration["ece_before"], done.calibration["ece_after"]
        click.echo(f"expected calibration error on the sample: {before:.3f}, calibrated {after:.3f}")
    for label, n in list(done.labels.items())[:_TOLD]:
        click.echo(shown(f"  {label}: {n}"))
