"""Released checkpoints as encoders: from `_data/checkpoints.toml`, which says where each lies, to EncoderSpecs."""

from __future__ import annotations

import os
import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from vidx.encoders._spec import EncoderSpec, WeightsFile
from vidx.encoders._weights import weights_folder
from vidx.schema.records import Preprocess
from vidx.schema.spaces import Space

_HUB = "hf://"
TEST_SCALE = 100.0  # what cosines are multiplied with in the tests of Text4Vis and ActionCLIP
RELEASED_HEAD = "Transf"  # of every checkpoint that Text4Vis' and ActionCLIP's authors released


def _prepared(recipe: str, side_px: int) -> Preprocess:
    """How the authors of a recipe prepare one centred view (their test transforms)."""
    enlarged = side_px * 256 // 224
    match recipe:
        case "text4vis" | "actionclip":
            return Preprocess(enlarged, side_px)
        case "clip" | "text4vis-336":
            return Preprocess(side_px, side_px)
        case "xclip" | "mmaction2":
            return Preprocess(enlarged, side_px, filter="opencv")
    return Preprocess(side_px, side_px, filter="bilinear")


# Mean and deviation of the colours, by recipe; see vidx.pixels.
NORMALISED = {
    "xclip": "imagenet",
    "xclip-transformers": "imagenet",
    "movinet": "unit",
    "mmaction2": "clip-mmaction2",
    "videomae": "imagenet",
}
_PERSON = ("a video of a person {}.",)
_ACTIONCLIP = (
    *("a photo of action {}", "a picture of action {}", "Human action of {}", "{}, an action", "{} this is an action"),
    *("{}, a video of action", "Playing action of {}", "{}", "Playing a kind of action, {}"),
    *("Doing a kind of action, {}", "Look, the human is {}", "Can you recognize the action of {}?"),
    *("Video classification of {}", "A video of {}", "The man is {}", "The woman is {}"),
)
# By family: whwu95/Text4Vis clip.py, microsoft/VideoX X-CLIP, sallymmx/ActionCLIP utils/Text_Prompt.py.
_TEMPLATES = {"clip": _PERSON, "text4vis": _PERSON, "xclip": ("{}",), "actionclip": _ACTIONCLIP}
_POOLING = {"clip": "mean of frames of unit norm"}
_CLASSIFIERS = ("movinet", "videomae")


def registered(family: str) -> dict[str, EncoderSpec]:
    """Every released checkpoint of a family, by the name of its encoder."""
    return {name: spec_from(name, facts) for name, facts in _checkpoints().items() if facts["family"] == family}


@cache
def _checkpoints() -> dict[str, dict[str, Any]]:
    text = files("vidx.encoders").joinpath("_data/checkpoints.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def spec_from(name: str, facts: dict[str, Any]) -> EncoderSpec:
    """The spec of a checkpoint from its facts, as `_data/checkpoints.toml` has them."""
    recipe, side_px = facts["recipe"], facts["side_px"]
    weights = [_file(name, facts, role="video")]
    if "base" in facts:
        weights.append(_file(facts["base"], _checkpoints()[facts["base"]], role="text"))
    if "config" in facts:
        weights.append(_file(name, {"address": facts["config"], "parameters": 0}, role="config"))
    return EncoderSpec(
        name=name,
        family=facts["family"],
        description=f"trained on {facts['trained_on']}; {facts['frames']} frames of {side_px} px",
        licence=facts["licence"],
        space=Space(
            encoder=name,
            weights={},  # until it is known which files they are
            preprocess=_prepared(recipe, side_px),
            frames=facts["frames"],
            pooling=_POOLING.get(facts["family"], "of the network"),
            dim=facts["dim"],
            normalise=NORMALISED.get(recipe, "clip"),
        ),
        weights=tuple(weights),
        templates=_TEMPLATES.get(facts["family"], ()),
        test_scale=TEST_SCALE if facts["family"] in ("text4vis", "actionclip") else None,
        classifies=facts["family"] in _CLASSIFIERS,
        patch_px=facts.get("patch_px"),
    )


def _file(name: str, facts: dict[str, Any], role: str) -> WeightsFile:
    address = facts.get("address")
    by_hand = f"get it from {facts['page']} and give it with --weights FILE" if "page" in facts else ""
    return WeightsFile(
        source=by_hand or f"run `vidx encoders fetch {name}`, or bring {address} and give it with --weights FILE",
        sha256=facts.get("sha256"),
        size_bytes=4 * facts["parameters"],
        path=hub_file(address) if address else None,
        role=role,
        address=address,
        place=weights_folder() / name / address.rpartition("/")[2] if address else None,
    )


def hub_file(address: str) -> Path | None:
    """Where Hugging Face's own tools have put a file."""
    if not address.startswith(_HUB):
        return None
    owner, name, file = address.removeprefix(_HUB).split("/", 2)
    folder = Path(hub_cache()) / f"models--{owner}--{name}" / "snapshots"
    found = sorted(folder.glob(f"*/{file}"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def hub_cache() -> str:
    """The cache of those tools, as their variables say."""
    home = os.environ.get("HF_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "huggingface"
    )
    return os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")
