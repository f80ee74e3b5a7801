"""`vidx eval`: published evaluations, and comparisons of encoders on videos of one's own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidx.cli_options import store_option
from vidx.config import default_store

if TYPE_CHECKING:
    from vidx.learn.protocols import Wish
    from vidx.learn.report import Report

_LEFT_OUT_SHOWN = 5
_folder = click.Path(path_type=Path)
_encoders = click.option(
    "--encoder", "encoders", multiple=True, metavar="NAME", help="Several may be given; each video is decoded once."
)
_weights = click.option(
    "--weights", type=click.Path(path_type=Path), multiple=True, help="Weights brought by hand, of one encoder."
)
_views = click.option("--views", default="1x1", show_default=True, metavar="CxK", help="C clips of a video, K crops.")
_frames = click.option("--frames", type=click.IntRange(1, 512), help="Frames of a clip, for CLIP, which takes any.")
_sampling = click.option("--sampling", metavar="RULE", help="Which frames.  [default: as the encoder's authors]")
_pooling = click.option(
    "--pooling", type=click.Choice(["mean", "unit-mean", "scores"]), help="Of CLIP's frames.  [default: scores]"
)


def _writable(_context: click.Context, _parameter: click.Parameter, folder: Path | None) -> Path | None:
    """A folder that is there or can be made: to be known before the work, not after it. Raises BadParameter."""
    if folder is not None:
        existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            raise click.BadParameter(f"can't write into {folder}: {existing} is no folder that can be written")
    return folder


def _output(command: Callable[..., Any]) -> Callable[..., Any]:
    report = click.option(
        "--report", "folder", type=_folder, callback=_writable, metavar="DIR", help="Write a report into this folder."
    )
    as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object.")
    return report(as_json(store_option(command)))


@click.group("eval")
def evaluate() -> None:
    """Measure how well encoders do, on published data sets or on videos of your own."""


@evaluate.command("zero-shot")
@click.argument("root", type=_folder)
@click.option(
    "--dataset",
    metavar="NAME",
    help="hmdb51, ucf101, kinetics400, kinetics600, activitynet, or folder: a folder for each class.",
)
@click.option("--lists", type=_folder, help="The published lists: a folder or a file.  [default: below ROOT]")
@click.option(
    "--split",
    metavar="WHICH",
    help="each, 1, 2, 3, pooled, full or half-class.  [default: each, with mean and deviation]",
)
@_encoders
@_weights
@click.option("--preset", metavar="NAME", help="A published table, as hmdb51-8frame-linspace.")
@_views
@_frames
@_sampling
@_pooling
@click.option("--template", "templates", multiple=True, metavar="TEXT", help="Text with {} for the class name.")
@click.option(
    "--names",
    type=click.Choice(["published", "words"]),
    default="published",
    show_default=True,
    help="Class names as published, or ApplyEyeMakeup as apply eye makeup.",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the bootstrap.")
@_output
def zero_shot(
    root: Path,
    store_path: Path | None,
    folder: Path | None,
    as_json: bool,
    encoders: tuple[str, ...],
    preset: str | None,
    weights: tuple[Path, ...],
    **chosen: Any,
) -> None:
    """Classify the videos of a data set by the names of its classes.

    \b
      vidx eval zero-shot /data/hmdb51 --dataset hmdb51 --encoder xclip-zero
      vidx eval zero-shot /data/hmdb51 --preset hmdb51-8frame-linspace --report table
    Features are kept with the store, so that other prompts take seconds; a run that was broken off goes on.
    """
    from vidx.learn.evaluate import Asked
    from vidx.learn.evaluate import zero_shot as measure
    from vidx.learn.example import example
    from vidx.learn.presets import EXAMPLES
    from vidx.learn.protocols import AS_AUTHORS

    store_path = store_path or default_store()
    wish = _wish(chosen)
    if preset in EXAMPLES:
        if encoders or wish != AS_AUTHORS or any(chosen[name] for name in ("dataset", "lists", "split")):
            raise click.UsageError(f"preset {preset} says how it is tested; give a video, and --weights at most")
        _print(example(store_path, preset, root, weights, _tell), [], folder, as_json)
        return
    asked = Asked(root, encoders=encoders, weights=weights, preset=preset, wish=wish, pictures=bool(folder), **chosen)
    _print(*measure(store_path, asked, _tell), folder, as_json)


@evaluate.command()
@click.argument("pairs", type=_folder)
@click.option("--root", type=_folder, metavar="DIR", help="Where the videos are.  [default: the folder of PAIRS]")
@click.option("--split", metavar="NAME", help="Only pairs of this split, where PAIRS tells of splits.")
@click.option("--paragraphs", is_flag=True, help="All texts of a video are one, as for DiDeMo.")
@_encoders
@_weights
@_views
@_frames
@_sampling
@_pooling
@click.option("--template", "templates", multiple=True, metavar="TEXT", help="Text with {} for the given text.")
@_output
def retrieval(
    pairs: Path,
    root: Path | None,
    store_path: Path | None,
    folder: Path | None,
    as_json: bool,
    encoders: tuple[str, ...],
    weights: tuple[Path, ...],
    split: str | None,
    paragraphs: bool,
    **chosen: Any,
) -> None:
    """Find videos by their texts, and texts by their videos.

    \b
    PAIRS is a CSV with a column for videos and one for texts (path,text; MSR-VTT's, MSVD's),
    or JSON as MSR-VTT and DiDeMo have it.
      vidx eval retrieval MSRVTT_JSFUSION_test.csv --root /data/msrvtt --encoder xclip-base-patch32
    """
    from vidx.encoders import DEFAULT
    from vidx.learn.retrieval import retrieval as measure

    report, left_out = measure(
        store_path or default_store(),
        pairs,
        root or pairs.absolute().parent,
        encoders or (DEFAULT,),
        weights=weights,
        wish=_wish(chosen),
        split=split,
        paragraphs=paragraphs,
        tell=_tell,
    )
    _print(report, left_out, folder, as_json)


@evaluate.command()
@click.argument("encoders", nargs=-1, required=True, metavar="ENCODER...")
@click.option("--pairs", type=_folder, required=True, metavar="FILE", help="Videos and texts, as for `retrieval`.")
@click.option("--root", type=_folder, metavar="DIR", help="Where the videos are.  [default: the folder of FILE]")
@click.option("--split", metavar="NAME", help="Only pairs of this split, where FILE tells of splits.")
@_output
def compare(
    encoders: tuple[str, ...],
    pairs: Path,
    root: Path | None,
    store_path: Path | None,
    folder: Path | None,
    as_json: bool,
    split: str | None,
) -> None:
    """Compare encoders on the same frames: what they find, what they cost, what the order of frames adds.

    \b
      vidx eval compare xclip-base-patch32 clip-vitb32 --pairs captions.csv --report comparison
    """
    from vidx.learn.compare import compare as measure

    report, left_out = measure(
        store_path or default_store(),
        pairs,
        root or pairs.absolute().parent,
        tuple(dict.fromkeys(encoders)),
        split=split,
        pictures=folder is not None,
        tell=_tell,
    )
    _print(report, left_out, folder, as_json)


@evaluate.command()
@click.argument("segments", type=_folder)
@click.option("--encoder", help="Search in what this encoder, or space, indexed.  [default: the store's]")
@click.option("--template", default="{}", show_default=True, metavar="TEXT", help="Text with {} for the label.")
@_output
def moments(
    segments: Path, store_path: Path | None, folder: Path | None, as_json: bool, encoder: str | None, template: str
) -> None:
    """Search for labelled segments, and see whether they are found and their times fit.

    \b
    SEGMENTS is a CSV with the columns path, start_s, end_s and label, of videos that are indexed.
      vidx eval moments segments.csv
    """
    from vidx.learn.detection import detect

    _check_template(template)
    _print(*detect(store_path or default_store(), segments, encoder=encoder, template=template), folder, as_json)


def _wish(chosen: dict[str, Any]) -> Wish:
    """The options about views, taken out of those chosen. Raises BadParameter."""
    from vidx.learn.protocols import Wish

    clips, _, crops = chosen.pop("views").partition("x")
    if not clips.isdecimal() or crops not in ("1", "3") or not 1 <= int(clips) <= 64:
        raise click.BadParameter("--views are clips x crops, 1 to 64 clips and 1 or 3 crops, as 4x3")
    taken = {name: chosen.pop(name) for name in ("frames", "sampling", "pooling", "templates")}
    for template in taken["templates"]:
        _check_template(template)
    return Wish(views=(int(clips), int(crops)), **taken)


def _check_template(template: str) -> None:
    if "{}" not in template:
        raise click.BadParameter(f"--template {template!r} has no {{}} for the name")


def _print(report: Report, left_out: Sequence[str], folder: Path | None, as_json: bool) -> None:
    from vidx.export import shown
    from vidx.learn.report import to_json, to_terminal, write_report

    click.echo(to_json(report) if as_json else to_terminal(report), nl=as_json)
    if folder is not None:
        write_report(report, folder)
        click.echo(f"report: {shown(str(folder / 'report.html'))}", err=True)
    for line in left_out[:_LEFT_OUT_SHOWN]:
        click.echo(f"left out: {shown(line)}", err=True)
    if (more := len(left_out) - _LEFT_OUT_SHOWN) > 0:
        click.echo(f"and {more} more are left out", err=True)


def _tell(done: int, total: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r{done} of {total} videos looked at", nl=done == total, err=True)
