"""Any model that open_clip knows, frame by frame: `clip:MODEL/PRETRAINED`."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import open_clip
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from torch import Tensor, nn

from vidx.encoders._checkpoint import assign
from vidx.encoders._heads import MeanOfUnits
from vidx.encoders._layouts import SCALARS, TEXT_PARTS, section
from vidx.encoders._registry import hub_cache, hub_file
from vidx.encoders._spec import EncoderSpec, WeightsFile
from vidx.encoders._towers import TextSide, activation_of
from vidx.encoders._weights import weights_folder
from vidx.errors import UnknownChoice, WeightsMissing
from vidx.pixels import NORMALISATIONS, SQUASH, Normalisation
from vidx.schema.records import Preprocess
from vidx.schema.spaces import Space

_FRAMES = 8
_HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def spec_of(name: str) -> EncoderSpec:
    """The spec of `clip:MODEL/PRETRAINED`. Raises UnknownChoice."""
    model, _, tag = name.removeprefix("clip:").partition("/")
    config, facts = open_clip.get_model_config(model), open_clip.get_pretrained_cfg(model, tag)
    if config is None or not facts:
        raise _unknown(name, model, tag)
    colours = Normalisation(tuple(facts["mean"]), tuple(facts["std"]))
    normalise = next((known for known, values in NORMALISATIONS.items() if values == colours), None)
    if normalise is None or facts["resize_mode"] not in ("shortest", "squash"):
        raise UnknownChoice(f"{name} prepares pictures in a way that vidx does not know", hint="choose another model")
    side = config["vision_cfg"]["image_size"]
    squash = facts["resize_mode"] == "squash"
    return EncoderSpec(
        name=name,
        family="clip",
        description=f"open_clip's {model}, trained on {tag}; the mean of {_FRAMES} frames",
        licence="see open_clip",
        space=Space(
            encoder=name,
            weights={},
            preprocess=Preprocess(side, side, filter=(SQUASH if squash else "") + facts["interpolation"]),
            frames=_FRAMES,
            pooling="mean of frames of unit norm",
            dim=config["embed_dim"],
            normalise=normalise,
        ),
        weights=(_file(name, facts),),
    )


def _unknown(name: str, model: str, tag: str) -> UnknownChoice:
    if tags := open_clip.list_pretrained_tags_by_model(model):
        what = f"open_clip knows no {model}/{tag}" if tag else f"{name} does not say which weights, as {name}/{tags[0]}"
        return UnknownChoice(what, hint=f"{model} comes with {', '.join(tags)}")
    close = difflib.get_close_matches(model, open_clip.list_models())
    hint = f"models of about that name: {', '.join(close)}" if close else "it is clip:MODEL/PRETRAINED"
    return UnknownChoice(f"open_clip knows no {name.removeprefix('clip:')}", hint=f"{hint}, as clip:ViT-B-32/openai")


def _file(name: str, facts: dict[str, Any]) -> WeightsFile:
    hub, url = facts.get("hf_hub", ""), facts.get("url", "")
    addresses = [f"hf://{hub.rstrip('/')}/{file}" for file in _HUB_FILES] if hub else []
    addresses = [*addresses, *([url] if url else [])]
    found = next((path for address in addresses if (path := hub_file(address))), None)
    folder = weights_folder() / name.replace(":", "-").replace("/", "-")
    return WeightsFile(
        source=f"run `vidx encoders fetch {name}`, or bring {addresses[0]} and give it with --weights FILE",
        sha256=None,
        size_bytes=0,
        path=found,
        role="video",
        address=addresses[0],
        place=folder / addresses[0].rpartition("/")[2],
    )


class OpenClipNetwork(nn.Module):
    """A model of open_clip as a network over videos: the mean of frames of unit norm."""

    frames = patch_px = None  # of which its name leaves no choice

    model: Any

    def __init__(self, model: nn.Module, dim: int) -> None:
        super().__init__()
        self.model, self.dim, self.head = model, dim, MeanOfUnits()

    @property
    def side_px(self) -> int:
        """Of the square pictures it takes."""
        size = self.model.visual.image_size
        side: int = size[0] if isinstance(size, tuple) else size
        return side

    def frame_features(self, pixels: Tensor) -> Tensor:
        """Normalised pictures (B, T, 3, side, side) to (B, T, d), not of unit norm."""
        features: Tensor = self.model.encode_image(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])
        return features

    def video_features(self, pixels: Tensor) -> Tensor:
        """Normalised pictures (B, T, 3, side, side) to (B, d)."""
        features: Tensor = self.head(self.frame_features(pixels))
        return features

    def text_features(self, tokens: Tensor) -> Tensor:
        """Token ids (N, L) to (N, d)."""
        features: Tensor = self.model.encode_text(tokens)
        return features

    @property
    def logit_scale(self) -> Tensor:
        """Its logarithm, a scalar."""
        scale: Tensor = self.model.logit_scale
        return scale

    def text_side(self) -> TextSide | None:
        """The text tower, where it is one like OpenAI's."""
        if not isinstance(self.model, open_clip.CLIP):
            return None
        tensors = {key: tensor for key, tensor in self.model.state_dict().items() if key.startswith(TEXT_PARTS)}
        blocks = self.model.transformer.resblocks
        return TextSide(tensors, heads=blocks[0].attn.num_heads, activation=activation_of(blocks[0]))


def network_of(name: str, loaded: Mapping[str, Any]) -> OpenClipNetwork:
    """The network of `clip:MODEL/PRETRAINED` with the weights of a file as it was loaded. Raises WeightsMisfit."""
    model_name, _, tag = name.removeprefix("clip:").partition("/")
    facts = open_clip.get_pretrained_cfg(model_name, tag)
    with _without_warning("No pretrained weights loaded"):  # they come next
        model = open_clip.create_model(
            model_name, load_weights=False, force_quick_gelu=facts.get("quick_gelu", False), pretrained_text=False
        )
    state = convert_state_dict(model, section(loaded, "state_dict"))
    state = {key: tensor for key, tensor in state.items() if key not in SCALARS}
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    for scalar in ("logit_scale", "logit_bias"):
        if scalar in state:
            state[scalar] = state[scalar].reshape(getattr(model, scalar).shape)
    assign(model, state, f"checkpoint of {name}")
    return OpenClipNetwork(model, open_clip.get_model_config(model_name)["embed_dim"])


@contextmanager
def _without_warning(beginning: str) -> Iterator[None]:
    def is_other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(beginning)

    logging.root.addFilter(is_other)
    try:
        yield
    finally:
        logging.root.removeFilter(is_other)


def own_tokens(name: str, texts: Sequence[str]) -> Tensor:
    """Token ids (N, L) of texts as the model of `clip:MODEL/PRETRAINED` wants them; nothing is fetched.

    Raises WeightsMissing.
    """
    try:
        tokens: Tensor = _tokenizer(name, local_files_only=True)(list(texts))
    except (OSError, ValueError) as error:
        raise WeightsMissing(
            f"the tokenizer of {name} is not on this machine", hint=f"run `vidx encoders fetch {name}`"
        ) from error
    return tokens


def bring_tokenizer(name: str) -> None:
    """Have Hugging Face's tools fetch the tokenizer of `clip:MODEL/PRETRAINED`, if it is not open_clip's own.

    Raises WeightsMissing.
    """
    try:
        own_tokens(name, [""])
    except WeightsMissing:
        log = logging.getLogger("huggingface_hub")  # which tells of every attempt
        level = log.level
        log.setLevel(logging.ERROR)
        try:
            _tokenizer(name, local_files_only=False)
        except (OSError, ValueError) as error:
            raise WeightsMissing(
                f"can't fetch the tokenizer of {name} ({_first_line(error)})",
                hint="run it where there is a network",
            ) from error
        finally:
            log.setLevel(level)


def _tokenizer(name: str, *, local_files_only: bool) -> Any:
    model_name = name.removeprefix("clip:").partition("/")[0]
    if "hf_tokenizer_name" not in open_clip.get_model_config(model_name)["text_cfg"]:
        return open_clip.get_tokenizer(model_name)
    return open_clip.get_tokenizer(model_name, cache_dir=hub_cache(), local_files_only=local_files_only)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
