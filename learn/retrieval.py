"""`vidx eval retrieval`: texts find their videos, and videos their texts, by one vector of each whole video."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidx import encoders
from vidx.encoders import VideoTextEncoder
from vidx.errors import InputError
from vidx.learn.features import Features, compute
from vidx.learn.metrics import Retrieval
from vidx.learn.metrics import retrieval as measured
from vidx.learn.pairs import Pairs, read_pairs
from vidx.learn.protocols import Protocol, Wish, protocol_of
from vidx.learn.report import Report, Table
from vidx.learn.zero_shot import pooled_rows
from vidx.schema.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

_DIRECTIONS = ("text to video", "video to text")


@dataclass(frozen=True)
class Vectors:
    """What one encoder makes of pairs: unit vectors of the videos that could be used, and of their texts.

    `videos` float32 (n, dim), `texts` float32 (m, dim).
    """

    encoder: VideoTextEncoder
    protocol: Protocol
    videos: np.ndarray
    texts: np.ndarray


@dataclass(frozen=True)
class Usable:
    """The pairs whose videos gave frames, and a line for each video that did not."""

    names: tuple[str, ...]
    paths: tuple[Path, ...]
    texts: tuple[str, ...]
    video_of_text: np.ndarray  # int64 (m,), into names
    left_out: list[str]


def retrieval(
    store_path: Path,
    pairs_path: Path,
    root: Path,
    names: Sequence[str],
    *,
    weights: tuple[Path, ...] = (),
    wish: Wish,
    split: str | None = None,
    paragraphs: bool = False,
    tell: Callable[[int, int], None],
) -> tuple[Report, list[str]]:
    """A report, and a line for each video that was left out. Raises VidxError."""
    pairs = read_pairs(pairs_path, root, split=split, paragraphs=paragraphs)
    usable, vectors = vectors_of(store_path, pairs, names, weights=weights, wish=wish, tell=tell)
    figures = [figures_of(one, usable) for one in vectors]
    report = Report(
        title=f"Retrieval on {pairs_path.name}",
        facts=facts_of(pairs_path, root, usable, vectors) | ({"split": split} if split else {}),
        tables=tuple(tables(figures)),
        figures={"videos": len(usable.names), "texts": len(usable.texts), "encoders": figures},
        items=_items(usable, vectors),
    )
    return report, usable.left_out


def vectors_of(
    store_path: Path,
    pairs: Pairs,
    names: Sequence[str],
    *,
    weights: tuple[Path, ...] = (),
    wish: Wish,
    tell: Callable[[int, int], None],
) -> tuple[Usable, list[Vectors]]:
    """Vectors of each encoder, every video decoded once for all of them. Raises VidxError."""
    if len(names) > 1 and weights:
        raise InputError("--weights can't be shared by several encoders", hint="name one --encoder")
    built = [encoders.build(encoders.here(name, weights)) for name in names]
    protocols = [protocol_of(encoder.spec, _as_indexed(encoder, wish)) for encoder in built]
    store = Store.create(store_path)
    each = [Features(store, encoder, protocol.look) for encoder, protocol in zip(built, protocols, strict=True)]
    keys, failed = compute(each, sorted({path for path in pairs.paths if path is not None}), tell)
    usable = _usable(pairs, keys, failed)
    number_of = {keys[path]: number for number, path in enumerate(usable.paths)}
    vectors = []
    for encoder, protocol, features in zip(built, protocols, each, strict=True):
        videos = np.empty((len(usable.paths), encoder.spec.space.dim), np.float32)
        for number, featured in features.read(number_of):
            views = pooled_rows(featured.rows.astype(np.float64), protocol.pooling)
            mean = (views / np.linalg.norm(views, axis=1, keepdims=True)).mean(axis=0)
            videos[number] = mean / np.linalg.norm(mean)
        vectors.append(Vectors(encoder, protocol, videos, texts_as(usable.texts, encoder, wish)))
    return usable, vectors


def _as_indexed(encoder: VideoTextEncoder, wish: Wish) -> Wish:
    """Frames of CLIP are pooled as they are for a search, where nothing else is asked for."""
    return replace(wish, pooling=wish.pooling or "unit-mean") if encoder.spec.family == "clip" else wish


def texts_as(texts: Sequence[str], encoder: VideoTextEncoder, wish: Wish) -> np.ndarray:
    """Unit vectors float32 (n, dim) of texts in the templates asked for; without one texts go in as they are."""
    templates = wish.templates or ("{}",)
    every = encoder.encode_text([template.replace("{}", text) for text in texts for template in templates])
    mean = every.reshape(len(texts), len(templates), -1).mean(axis=1)
    unit: np.ndarray = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    return unit


def _usable(pairs: Pairs, keys: dict[Path, Any], failed: dict[Path, str]) -> Usable:
    kept = [n for n, path in enumerate(pairs.paths) if path in keys]
    place = {n: number for number, n in enumerate(kept)}
    texts = [n for n, video in enumerate(pairs.video_of_text.tolist()) if video in place]
    left_out = [f"{name}: no such file" for name, path in zip(pairs.names, pairs.paths, strict=True) if path is None]
    left_out += [f"{path}: {reason}" for path, reason in failed.items()]
    if not texts:
        raise InputError(f"no video of the pairs could be used: {left_out[0] if left_out else 'there is none'}")
    return Usable(
        tuple(pairs.names[n] for n in kept),
        tuple(path for n in kept if (path := pairs.paths[n]) is not None),
        tuple(pairs.texts[n] for n in texts),
        np.array([place[int(pairs.video_of_text[n])] for n in texts], np.int64),
        left_out,
    )


def both_ways(vectors: Vectors, usable: Usable) -> dict[str, Retrieval]:
    """Text to video and video to text."""
    similarities = vectors.texts @ vectors.videos.T
    relevant = usable.video_of_text[:, None] == np.arange(len(usable.names))
    with_text = np.unique(usable.video_of_text)
    one = measured(similarities, relevant)
    other = measured(similarities.T[with_text], relevant.T[with_text])
    return dict(zip(_DIRECTIONS, (one, other), strict=True))


def figures_of(vectors: Vectors, usable: Usable) -> dict[str, Any]:
    """What a report holds of one encoder; recall is a share."""
    spec = vectors.encoder.spec
    figures = {"encoder": spec.name, "space": spec.space.name, "protocol": vectors.protocol.facts()}
    return figures | {
        direction.replace(" ", "_"): asdict(found) for direction, found in both_ways(vectors, usable).items()
    }


def tables(figures: Sequence[dict[str, Any]]) -> list[Table]:
    """A table for each direction."""
    columns = ("encoder", "R@1 %", "R@5 %", "R@10 %", "median rank", "mean rank", "mAP %", "queries")
    found = []
    for direction in _DIRECTIONS:
        rows = []
        for one in figures:
            of = one[direction.replace(" ", "_")]
            recalls = [100 * of[name] for name in ("r1", "r5", "r10")]
            rows.append(
                (one["encoder"], *recalls, of["median_rank"], of["mean_rank"], 100 * of["mean_ap"], int(of["n"]))
            )
        found.append(Table(direction.capitalize(), columns, tuple(rows)))
    return found


def facts_of(pairs_path: Path, root: Path, usable: Usable, vectors: Sequence[Vectors]) -> dict[str, Any]:
    """How it was measured."""
    return {
        "pairs": str(pairs_path),
        "root": str(root),
        "videos": len(usable.names),
        "texts": len(usable.texts),
        "encoders": {one.encoder.spec.name: one.protocol.facts() for one in vectors},
    }


def _items(usable: Usable, each: Sequence[Vectors]) -> pa.Table:
    """A row for each text and encoder: the rank of its video, and which came first."""
    import pyarrow as pa

    rows = []
    for vectors in each:
        similarities = vectors.texts @ vectors.videos.T
        for text, video, row in zip(usable.texts, usable.video_of_text.tolist(), similarities, strict=True):
            order = np.argsort(-row, kind="stable")
            rows.append(
                {
                    "encoder": vectors.encoder.spec.name,
                    "text": text,
                    "video": usable.names[video],
                    "path": str(usable.paths[video]),
                    "rank": int(np.flatnonzero(order == video)[0]) + 1,
                    "cosine": float(row[video]),
                    "first": usable.names[order[0]],
                }
            )
    return pa.Table.from_pylist(rows)
