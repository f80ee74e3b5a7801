"""Encoders that `vidx train` made: a folder with `model.json`, the weights and what else they need.

Their name is `trained:` and the folder's; which weights they are their digests say, so that a folder may be moved.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vidx.encoders._spec import EncoderSpec, WeightsFile
from vidx.encoders._weights import digest_of, place_of
from vidx.errors import InputError, WeightsDamaged, WeightsMissing
from vidx.schema.files import write_atomically
from vidx.schema.records import Preprocess
from vidx.schema.spaces import Space

MODEL, WEIGHTS, TOKENIZER = "model.json", "model.safetensors", "tokenizer.json"
PREFIX = "trained:"
CLASSIFIERS = ("movinet", "videomae")  # families without a space
_FORMAT = 1


def is_trained_folder(name: str) -> bool:
    """Whether a name is that of a folder with a trained model."""
    return (Path(name) / MODEL).is_file()


def is_trained(name: str) -> bool:
    """Whether a name is that of a folder with a trained model, or of the encoder in it."""
    return name.startswith(PREFIX) or is_trained_folder(name)


def write_model(folder: Path, **facts: Any) -> None:
    """Say what the weights in a folder are: `family`, `frames`, `dim`, `normalise`, `preprocess`, `trained_on`, ..."""
    write_atomically(folder / MODEL, json.dumps({"format": _FORMAT, **facts}, indent=1).encode())


def read_model(folder: Path) -> dict[str, Any]:
    """What `write_model` wrote. Raises WeightsDamaged."""
    try:
        facts: dict[str, Any] = json.loads((folder / MODEL).read_text(encoding="utf-8"))
        if facts["format"] > _FORMAT:
            raise ValueError("a later vidx wrote it")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsDamaged(f"{folder / MODEL} can't be read: {error}", hint="train the model again") from error
    return facts


def spec_of_folder(folder: Path) -> EncoderSpec:
    """The encoder in a folder. Raises InputError, WeightsDamaged, WeightsMissing."""
    folder = folder.absolute()
    facts, name = read_model(folder), PREFIX + folder.name
    if facts.get("family") in CLASSIFIERS:
        raise InputError(
            f"{folder} gives labels, not vectors to search", hint=f"label with it: `vidx tag --model {folder}`"
        )
    if not (folder / WEIGHTS).is_file():
        raise WeightsMissing(f"{folder} has no {WEIGHTS} yet", hint="let its training come to a first check")
    files = {role: folder / file for role, file in (("video", WEIGHTS), ("tokenizer", TOKENIZER))}
    digests = {role: digest_of(path) for role, path in files.items() if path.is_file()}
    try:
        space = Space(
            encoder=name,
            weights=digests,
            preprocess=Preprocess(**facts["preprocess"]),
            frames=facts["frames"],
            pooling=facts["pooling"],
            dim=facts["dim"],
            normalise=facts["normalise"],
        )
        return EncoderSpec(
            name=name,
            family=facts["family"],
            description=f"trained on {facts['trained_on']}; {facts['frames']} frames",
            licence="yours",
            space=space,
            weights=(_file(folder / WEIGHTS, digests["video"]),),
            templates=tuple(facts.get("templates", ())),
            test_scale=facts.get("test_scale"),
        )
    except (KeyError, TypeError) as error:
        raise WeightsDamaged(f"{folder / MODEL} lacks {error}", hint="train the model again") from error


def spec_of_space(space: Space) -> EncoderSpec:
    """The encoder that made a space, wherever its folder lies now. Raises WeightsMissing."""
    path = place_of(space.weights.get("video", ""))
    if path is None or not (path.parent / MODEL).is_file():
        raise WeightsMissing(
            f"{space.encoder} is not where it was", hint="put its folder back, or name it once with --encoder FOLDER"
        )
    return spec_of_folder(path.parent)


def spec_named(name: str) -> EncoderSpec:
    """The encoder of a folder. Raises InputError for a bare `trained:NAME`, which says not where it lies."""
    if name.startswith(PREFIX):
        raise InputError(f"where is {name}?", hint="name its folder: --encoder FOLDER")
    return spec_of_folder(Path(name))


def _file(path: Path, digest: str) -> WeightsFile:
    return WeightsFile("train it again", digest, path.stat().st_size, path, role="video")
