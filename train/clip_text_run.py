"""`vidx train text4vis`, `actionclip` and `xclip`: fine-tuning to the classes of a folder of videos.

The folder of a run is an encoder: `vidx index VIDEOS --encoder FOLDER`. The authors train what is new at ten times the
rate of what comes from CLIP (Text4Vis clip_ratio, ActionCLIP f_ratio, X-CLIP utils/optimizer.py); here all has one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidx import encoders
from vidx.encoders import EncoderSpec
from vidx.encoders._frames_network import FramesNetwork
from vidx.encoders._trained import read_model
from vidx.encoders._xclip_network import XCLIPNetwork
from vidx.errors import InputError
from vidx.learn._pictures import confusion_png
from vidx.learn.datasets import Item, Split
from vidx.learn.features import Features
from vidx.learn.metrics import confusion
from vidx.learn.protocols import AS_AUTHORS, protocol_of
from vidx.learn.report import Report, Table, write_report
from vidx.learn.zero_shot import Candidate, Scored, name_of, scored_splits
from vidx.plugins import load
from vidx.schema.records import printable
from vidx.schema.store import Store
from vidx.train.classifier import Classifier, Plan, Tell, describe
from vidx.train.clip_text import (
    Matching,
    Network,
    TextRecipe,
    begun_with_clip,
    class_tokens,
    text4vis_module,
    xclip_module,
)
from vidx.train.clip_text_data import prepared_as, segment_view
from vidx.train.footage import Parts
from vidx.train.loop import fit
from vidx.train.trained_classifier import curves_of

if TYPE_CHECKING:
    import pyarrow as pa

TRAINED, BEFORE = "trained", "before"
_CLIP = "clip"
_WARMUP_SHARE = 5 / 30  # epochs of the authors of all three
_WEIGHT_DECAY = {"text4vis": 0.2, "actionclip": 0.2, "xclip": 0.001}  # their configurations


@dataclass(frozen=True, kw_only=True)
class TextPlan(Plan):
    """See `Plan`; `weights` is the encoder to begin with: one of the family, one that was trained, or a CLIP."""

    files: tuple[Path, ...] = ()  # its weights, where they are not in their place
    names: str = "published"  # of classes in texts, see `vidx.learn.zero_shot.name_of`
    mirrors: bool = True


@dataclass(frozen=True)
class Tested:
    """Figures on the test videos, of the trained weights and of those they began with; and where the report is."""

    trained: dict[str, Any]
    before: dict[str, Any]
    report: Path
    left_out: dict[Path, str]  # files that can't be decoded, of all parts


def train_clip_text(family: str, folder: Path, plan: TextPlan, tell: Tell) -> Tested:
    """Train, or go on where a run in `folder` was stopped, then measure on the test videos.

    Raises InputError, UnknownChoice, WeightsMissing, WeightsAltered, WeightsDamaged, WeightsMisfit.
    """
    parts = plan.parts()
    start = encoders.here(plan.weights, plan.files)
    spec, network = begun(family, start, plan.seed)
    view = segment_view(protocol_of(spec, AS_AUTHORS).look, plan.mirrors)
    described = {
        "dim": network.dim,
        "pooling": spec.space.pooling,
        "normalise": spec.space.normalise,
        "templates": list(spec.templates),
        "test_scale": spec.test_scale,
        "class_names": plan.names,
        "began_with": {"encoder": start.name, **start.space.weights},
    }
    describe(folder, plan, parts, prepared_as(view, spec.space.preprocess), family=family, **described)
    module = module_of(spec, network, [name_of(name, plan.names) for name in parts.classes])
    settings = plan.settings(len(parts.training), warmup_share=_WARMUP_SHARE)
    settings = replace(settings, weight_decay=_WEIGHT_DECAY[family])
    with TextRecipe(module, view, parts, batch=plan.batch, seed=plan.seed) as recipe:
        fit(recipe, settings, folder, tell)
        left_out = recipe.failed
    return tested(folder, start, parts, plan.names, left_out)


def begun(family: str, start: EncoderSpec, seed: int) -> tuple[EncoderSpec, Network]:
    """What is trained: a network of a family, and the spec of its encoder, of which the name is that of its beginning.

    With a CLIP it is seen through the family's eyes: its preparation of pictures, its templates, its scale. Raises
    InputError for encoders of other kinds, and what loading weights raises.
    """
    wrong = InputError(
        f"{start.name} is no {family} and no CLIP of OpenAI's",
        hint=f"begin with one of `vidx encoders`, as {_first(family)}",
    )
    if start.family not in (family, _CLIP):
        raise wrong
    encoder: Any = encoders.build(start)
    network = encoder.network
    if not isinstance(network, FramesNetwork | XCLIPNetwork):
        raise wrong
    network, spec = network.cpu(), start
    if start.family == _CLIP:
        assert isinstance(network, FramesNetwork)
        spec = _as_family(start, load("encoders", family).NAMES[_first(family)], network.side_px)
        state = begun_with_clip(network, family, spec.space.frames, seed)
        network = load("encoders", family).from_state_dict(state, frames=spec.space.frames)
    for parameter in network.parameters():
        parameter.data = parameter.data.clone()  # from mapped files, and parts of one tensor
    return spec, network


def _first(family: str) -> str:
    return str(next(iter(load("encoders", family).NAMES)))


def _as_family(start: EncoderSpec, like: EncoderSpec, side_px: int) -> EncoderSpec:
    """A CLIP's spec with what the first released encoder of a family does."""
    enlarged = like.space.preprocess.short_side_px * side_px // like.space.preprocess.crop_px
    preprocess = replace(like.space.preprocess, short_side_px=enlarged, crop_px=side_px)
    space = replace(start.space, preprocess=preprocess, pooling=like.space.pooling, normalise=like.space.normalise)
    return replace(like, name=start.name, space=space, weights=start.weights, patch_px=start.patch_px)


def module_of(spec: EncoderSpec, network: Network, names: list[str]) -> Classifier:
    """The module to train, for classes of these names."""
    tokens, normalise = class_tokens(spec.templates, names), spec.space.normalise or "clip"
    if isinstance(network, XCLIPNetwork):
        return xclip_module(network, tokens, normalise)
    if spec.family == "text4vis":
        return text4vis_module(network, tokens, normalise)
    return Matching(network, tokens, normalise)


def tested(folder: Path, start: EncoderSpec, parts: Parts, names: str, left_out: Mapping[Path, str]) -> Tested:
    """Measure the encoder in a folder and the one it began with on the test videos, and write a report into the folder.

    Both as `vidx eval zero-shot` does. Raises InputError where no test video can be decoded.
    """
    items = tuple(Item(printable(bytes(video.path)), video.path, video.label, None) for video in parts.test)
    split = Split("test", parts.classes, items)
    with tempfile.TemporaryDirectory() as scratch:
        store = Store.create(Path(scratch) / "store")
        candidates = [
            _candidate(store, title, spec) for title, spec in ((TRAINED, encoders.here(str(folder))), (BEFORE, start))
        ]
        scored, failed = scored_splits(candidates, [split], names=names, tell=lambda _done, _total: None)
    [trained], [before] = scored
    if not len(trained.labels):
        raise InputError("not one test video can be decoded", hint=next(iter(failed.values()), ""))
    failed = {**left_out, **failed}
    report = _report(folder, candidates, (trained, before), failed)
    write_report(report, folder)
    figures = report.figures
    return Tested(figures[TRAINED], figures[BEFORE], folder / "report.md", failed)


def _candidate(store: Store, title: str, spec: EncoderSpec) -> Candidate:
    encoder = encoders.build(spec)
    protocol = protocol_of(spec, AS_AUTHORS)
    return Candidate(title, Features(store, encoder, protocol.look), protocol)


def _report(
    folder: Path, candidates: list[Candidate], scored: tuple[Scored, Scored], left_out: Mapping[Path, str]
) -> Report:
    facts = read_model(folder)
    trained = scored[0]
    classes, counts = trained.split.classes, [_confusion(one) for one in scored]
    figures: dict[str, Any] = {
        candidate.title: {**one.figures(), "encoder": candidate.encoder.spec.name, "confusion": count.tolist()}
        for candidate, one, count in zip(candidates, scored, counts, strict=True)
    }
    told = ("trained_on", "began_with", "training", "frames", "sampling", "templates", "class_names")
    titles = [candidate.title for candidate in candidates]
    return Report(
        title=f"{facts['family']} on test videos",
        facts={name: facts[name] for name in told},
        tables=(_accuracy(figures), _by_class(classes, counts)),
        figures={**figures, "left_out": {printable(bytes(path)): reason for path, reason in left_out.items()}},
        pictures=_pictures(folder, dict(zip(titles, counts, strict=True)), classes) if find_spec("matplotlib") else {},
        items=_items(dict(zip(titles, scored, strict=True))),
    )


def _pictures(folder: Path, counts: Mapping[str, np.ndarray], classes: tuple[str, ...]) -> dict[str, bytes]:
    matrices = {f"confusion_{title}.png": confusion_png(count, classes) for title, count in counts.items()}
    return {**matrices, **curves_of(folder)}


def _confusion(scored: Scored) -> np.ndarray:
    return confusion(scored.predictions, scored.labels, len(scored.split.classes))


def _accuracy(figures: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = tuple(
        (
            *(title, one["encoder"], one["items"], 100 * one["top1"]),
            f"{100 * one['top1_low']:.1f} to {100 * one['top1_high']:.1f}",
            *(100 * one["top5"], 100 * one["mean_class_accuracy"]),
        )
        for title, one in figures.items()
    )
    columns = ("weights", "encoder", "videos", "top-1 %", "95 % interval", "top-5 %", "mean class %")
    return Table("Accuracy", columns, rows, "The interval is a bootstrap over videos.")


def _by_class(classes: tuple[str, ...], counts: list[np.ndarray]) -> Table:
    """How many videos of each class were told right, after and before."""
    rows: list[tuple[str | float | int | None, ...]] = []
    for label in np.flatnonzero(counts[0].sum(axis=1)).tolist():
        n = int(counts[0][label].sum())
        rows.append((classes[label], n, *(100 * float(count[label, label]) / n for count in counts)))
    return Table("Classes", ("class", "videos", "right %", "before %"), tuple(rows))


def _items(scored: Mapping[str, Scored]) -> pa.Table:
    """A row for each test video and each of both weights."""
    import pyarrow as pa

    return pa.Table.from_pylist(
        [
            {
                "weights": title,
                "path": one.split.items[number].name,
                "label": one.split.classes[label],
                "predicted": one.split.classes[predicted],
                "probability": float(probabilities[predicted]),
            }
            for title, one in scored.items()
            for number, label, predicted, probabilities in zip(
                one.numbers, one.labels, one.predictions, one.probabilities, strict=True
            )
        ]
    )
