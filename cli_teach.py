"""`vidx teach`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidx.cli_options import store_option
from vidx.config import default_store

if TYPE_CHECKING:
    from vidx.learn.teach import Taught

_SHOWN_UNMATCHED = 5
_moments = click.Path(path_type=Path)


@click.command()
@click.argument("label")
@click.option(
    "--from",
    "sources",
    type=_moments,
    multiple=True,
    required=True,
    metavar="FILE",
    help="Moments that show it: JSON of a search, in which a hit may have `relevant: false`, or CSV.",
)
@click.option(
    "--not-from",
    "negative_sources",
    type=_moments,
    multiple=True,
    metavar="FILE",
    help="Moments that do not, in the same forms.",
)
@click.option(
    "--random",
    "n_random",
    type=click.IntRange(0, 1_000_000),
    metavar="N",
    help="So many random clips of other videos as negatives.  [default: 10 a positive clip, at least 100]",
)
@click.option(
    "--method",
    type=click.Choice(["logistic", "prototype"]),
    default="logistic",
    show_default=True,
    help="Logistic regression, or the nearer of two means.",
)
@click.option("--encoder", help="Teach it in what this encoder, or space, indexed.  [default: the store's]")
@store_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def teach(
    label: str,
    sources: tuple[Path, ...],
    negative_sources: tuple[Path, ...],
    store_path: Path | None,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Teach a label by moments that show it and moments that do not.

    \b
      vidx search "a goal" -k 30 --format json -o hits.json
      vidx teach "goal celebration" --from hits.json
    In hits.json, give each hit that is wrong `"relevant": false`. A CSV has the columns path (or video_id), start_s,
    end_s and, where some are wrong, relevant; without times it means the whole video.
    """
    from vidx.export import shown
    from vidx.learn.teach import teach as run_teach
    from vidx.schema.store import Store

    store = Store.open(store_path or default_store())
    taught = run_teach(store, label, sources, negative_sources, **chosen)
    if taught.trouble:
        click.echo(f"{taught.trouble}; taught without it; run `vidx index --rebuild-index`", err=True)
    for line in taught.unmatched[:_SHOWN_UNMATCHED]:
        click.echo(shown(line), err=True)
    if (more := len(taught.unmatched) - _SHOWN_UNMATCHED) > 0:
        click.echo(f"and {more} more that match no clip", err=True)
    if as_json:
        click.echo(json.dumps(_fields(taught), ensure_ascii=False))
    else:
        for line in _in_words(taught):
            click.echo(line, err=True)


def _fields(taught: Taught) -> dict[str, Any]:
    head, measured = taught.head, taught.out_of_fold
    return {
        **{"label": head.label, "space": head.space, "method": head.method},
        **{"n_positive": head.n_positive, "n_negative": head.n_negative, "n_random": taught.n_random},
        "threshold": head.threshold,
        **{name: getattr(measured, name, None) for name in ("f1", "precision", "recall")},
        **{"digest": head.digest, "file": str(taught.file), "unmatched": taught.unmatched},
    }


def _in_words(taught: Taught) -> list[str]:
    head, measured = taught.head, taught.out_of_fold
    random = f", {taught.n_random} of them random clips of other videos" if taught.n_random else ""
    told = "too few videos with examples to measure it"
    if measured is not None:
        told = f"out of fold F1 {measured.f1:.2f}, precision {measured.precision:.2f}, recall {measured.recall:.2f}"
    name = shlex.quote(head.label)
    return [
        f"{head.label}: taught in {head.space} by {head.n_positive} positive and {head.n_negative} negative"
        f" clips{random}",
        f"threshold {head.threshold:.3f}; {told}",
        f"use it: `vidx search --taught {name}` and `vidx tag --taught {name}`",
    ]
