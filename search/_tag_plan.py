"""What `vidx tag` was asked for, settled: labels and texts to a scorer, thresholds, and what is kept with the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidx.config import TagOptions
from vidx.encoders._prompts import Prompts, prompts_of
from vidx.errors import InputError
from vidx.schema.heads import Head, read_head
from vidx.schema.snapshot import Snapshot
from vidx.schema.spaces import Space
from vidx.schema.tables import SEARCHES
from vidx.schema.tag_tables import read_calibration
from vidx.search._tag_exact import ExactScores
from vidx.search._tag_model import ModelScores, labels_of
from vidx.search._tag_rows import SEGMENT, Rule
from vidx.search._tag_sample import Learnt, Score, learn
from vidx.search._tag_scores import BACKGROUND, MULTI, SINGLE, Scorer, Texts
from vidx.search.calibration import Calibration
from vidx.search.labels import Label, LabelSet, digest_of, read_labels, read_texts, set_name
from vidx.search.query import encoder_of

if TYPE_CHECKING:
    from vidx.encoders._trained_classifier import TrainedClassifier

_UNSURE = 0.5  # least probability where nobody names one and labels do not compete


@dataclass
class TagPlan:
    """Everything that decides the rows of a set of tags."""

    tag_set: str
    scorer: Scorer
    rules: dict[str, Rule]  # by level
    columns: dict[str, str]  # the same in every row
    facts: dict[str, Any]  # for the rows' metadata
    score: Score
    key: dict[str, str]  # what a calibration is for
    learnt: Learnt | None = None  # where this run was to calibrate
    notes: list[str] = field(default_factory=list)

    @property
    def undecoded(self) -> list[int] | None:
        """Clips that could not be decoded so far; None where nothing is."""
        return self.score.left if isinstance(self.score, ExactScores | ModelScores) else None


def plan_of(snapshot: Snapshot, space: Space, options: TagOptions) -> TagPlan:
    """Settle what to do; calibrates where that is asked for. Raises VidxError."""
    classifier = None if options.model is None else _classifier(options.model)
    label_set, heads = _labels(snapshot, space, options, classifier)
    tag_set = set_name(options.tag_set or label_set.name)
    if tag_set == SEARCHES:
        raise InputError(f"the set {SEARCHES} is that of `vidx search --tag`", hint="name another with --set")
    way = (
        _by_texts(snapshot, space, label_set, options) if classifier is None else _by_model(snapshot, space, classifier)
    )
    plain = Scorer(label_set, way.texts, heads, mode=options.mode, scale=way.scale)
    notes: list[str] = []
    learnt, calibration = None, None
    key = {"prompts_digest": digest_of(way.decides), "space": space.name}
    if options.calibrate is not None:
        learnt = learn(snapshot, space, way.score(plain), label_set, options)
        calibration = learnt.calibration
        notes += learnt.notes
        if np.isinf(calibration.thresholds).all():
            notes.append(f"no threshold reaches {calibration.aim} on the sample, so no label is told")
    elif options.calibrated and label_set.labels:
        calibration, note = _kept_calibration(snapshot, tag_set, key)
        notes += [note] if note else []
    scorer = Scorer(label_set, way.texts, heads, mode=options.mode, scale=way.scale, calibration=calibration)
    rules = {
        level: Rule(
            thresholds=_thresholds(label_set, heads, calibration, options, level),
            n_told=scorer.n_told,
            top=options.top,
            mode=options.mode,
            taught=(scorer.n_texts, scorer.n_told),
        )
        for level in dict.fromkeys(options.levels)
    }
    facts = {
        "tag_set": tag_set,
        "label_set": label_set.name,
        **way.decides,
        "taught": {head.label: head.digest for head in heads},
        "levels": list(rules),
        "top": options.top,
        "calibration": None if calibration is None else calibration.report,
    }
    columns = {**way.made_by, "prompts_digest": digest_of({**way.decides, "taught": facts["taught"]})}
    return TagPlan(tag_set, scorer, rules, columns, facts, way.score(scorer), key, learnt, notes)


@dataclass(frozen=True)
class _Way:
    """How probabilities of labels come about; `decides` is what they hang on, `made_by` stands in every row."""

    decides: dict[str, Any]
    made_by: dict[str, str]
    score: Callable[[Scorer], Score]
    texts: Texts | None = None
    scale: float = 1.0


def _by_texts(snapshot: Snapshot, space: Space, label_set: LabelSet, options: TagOptions) -> _Way:
    encoder = encoder_of(space)
    prompts = prompts_of(encoder.spec, label_set.published)
    if options.templates:
        prompts = Prompts(options.templates, prompts.averaged)
    background = _background(options)
    scale = encoder.logit_scale if label_set.labels else 1.0
    decides = {
        "labels": [[label.name, label.texts, label.parent] for label in label_set.labels],
        "templates": prompts.templates,
        "averaged": prompts.averaged,
        "background": background,
        "mode": options.mode,
        "logit_scale": scale,
        "exact": options.exact,
    }

    def score(scorer: Scorer) -> Score:
        if options.exact:
            return ExactScores(snapshot.store, space, encoder, scorer, label_set, background, prompts)
        return lambda block: (block, scorer.of_vectors(block.vectors))

    made_by = {"encoder": space.encoder, "weights_digest": space.weights_digest}
    return _Way(decides, made_by, score, Texts.encoded(encoder, label_set, background, prompts), scale)


def _by_model(snapshot: Snapshot, space: Space, classifier: TrainedClassifier) -> _Way:
    return _Way(
        {"model": classifier.digest, "labels": classifier.labels, "sampling": classifier.sampling},
        {"encoder": classifier.name, "weights_digest": classifier.digest},
        lambda scorer: ModelScores(snapshot.store, space, classifier, scorer),
    )


def _classifier(folder: Path) -> TrainedClassifier:
    from vidx.encoders._trained_classifier import load_classifier  # pulls in torch, which stored vectors do without

    return load_classifier(folder)


def _labels(
    snapshot: Snapshot, space: Space, options: TagOptions, classifier: TrainedClassifier | None
) -> tuple[LabelSet, list[Head]]:
    """Raises InputError where there is nothing to label with, or one name for two labels."""
    if classifier is not None:
        label_set = labels_of(classifier)
    else:
        label_set = read_labels(options.labels) if options.labels is not None else LabelSet("taught", ())
    heads = [read_head(snapshot.store, space.name, label) for label in options.taught]
    names = [*label_set.names, *(head.label for head in heads), *label_set.parents]
    if not names:
        raise InputError("nothing to label with", hint="give --labels SET or FILE, --model FOLDER, or --taught LABEL")
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise InputError(f"label {twice[0]!r} is there twice", hint="leave one out")
    return label_set, heads


def _background(options: TagOptions) -> tuple[str, ...]:
    if options.background is not None:
        return read_texts(options.background)
    return BACKGROUND if options.mode == MULTI else ()


def _kept_calibration(snapshot: Snapshot, tag_set: str, key: dict[str, str]) -> tuple[Calibration | None, str]:
    """What an earlier run learnt for the very same scoring, else why it is not used."""
    fields = read_calibration(snapshot.store, tag_set)
    if fields is None:
        return None, ""
    if {name: fields.get(name) for name in key} != key:
        return None, f"the calibration of {tag_set} was made for other labels, prompts or mode, and is not used"
    return Calibration.from_json(fields.get("calibration")), ""


def _thresholds(
    label_set: LabelSet, heads: Sequence[Head], calibration: Calibration | None, options: TagOptions, level: str
) -> np.ndarray:
    """Least probabilities of all columns, float32: asked for, of the file of labels, learnt, or of the mode.

    A parent has the lowest of its labels.
    """
    usual = 0.0 if options.mode == SINGLE and level != SEGMENT else _UNSURE
    learnt = calibration.thresholds.tolist() if calibration is not None else [usual] * len(label_set.labels)

    def of_label(label: Label, threshold: float) -> float:
        return label.threshold if label.threshold is not None else threshold

    told = [of_label(label, threshold) for label, threshold in zip(label_set.labels, learnt, strict=True)]
    lowest = dict.fromkeys(label_set.parents, np.inf)
    for label, threshold in zip(label_set.labels, told, strict=True):
        if label.parent is not None:
            lowest[label.parent] = min(lowest[label.parent], threshold)
    columns = [*told, *(head.threshold for head in heads), *lowest.values()]
    if options.threshold is not None:
        columns = [options.threshold] * len(columns)
    return np.array(columns, np.float32)
