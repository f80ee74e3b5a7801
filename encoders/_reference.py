"""Comparing an encoder with what the original implementation returned for the same weights and inputs.

A reference file is safetensors: `state.*` (and `fusion.*`, `clip.*`) hold the weights under the original's names,
`input.*` what the network was given, `output.*` what it returned; the metadata name the model, where in a released file
the weights lie, and the facts that tensors can't tell.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vidx.errors import UnknownChoice, VidxError, WeightsDamaged
from vidx.plugins import available, load

_TOLERANCE = 1e-4
_TOLERANCE_SCALED = 1e-3  # of what the logit scale or 100 multiplies
_TOLERANCE_LEVELS = 1.0  # of 256
_SCALED = ("logits", "frame_logits", "train_logits", "similarity_x100")

# The names that facts have in `config`; widths, depths and sizes are never taken from there.
_FACTS = {
    "T": "frames",
    "vision_heads": "vision_heads",
    "transformer_heads": "text_heads",
    "header_heads": "header_heads",
    "activation": "activation",
    "sim_header": "header",
    "tm": "temporal",
    "num_prompts": "prompts",
    "views": "views",
    "chunks": "chunks",
    "num_classes": "num_classes",
    "conv_type": "conv_type",
    "causal": "causal",
}


@dataclass(frozen=True)
class Compared:
    """One `output.*` tensor: the largest absolute difference and what is allowed; why, if it was not compared."""

    output: str
    difference: float
    tolerance: float
    not_compared: str = ""

    @property
    def within(self) -> bool:
        return not self.not_compared and math.isfinite(self.difference) and self.difference <= self.tolerance


@dataclass(frozen=True)
class Reference:
    """What a file holds."""

    model: str
    sections: dict[str, Any]  # as a released file has them
    text_state: dict[str, Tensor] | None
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    facts: dict[str, Any]
    config: dict[str, Any]

    @property
    def family(self) -> str:
        return self.model.split("-")[0]


def read_reference(path: Path) -> Reference:
    """Raises WeightsDamaged for what is no reference file."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        config = dict(json.loads(metadata["config"]))
        model = metadata["model"]
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise WeightsDamaged(
            f"{path} is no reference file ({error})", hint="see `vidx encoders check --help`"
        ) from error
    names = [name.strip() for name in metadata.get("checkpoint_section", "").split("+")]
    state, fusion = _below(tensors, "state."), _below(tensors, "fusion.")
    sections: dict[str, Any] = {names[0]: state} if names[0].isidentifier() else {**state}
    if fusion:
        sections = {**sections, names[-1]: fusion}
    return Reference(
        model=model,
        sections=sections,
        text_state=_below(tensors, "clip.") or None,
        inputs=_below(tensors, "input."),
        outputs=_below(tensors, "output."),
        facts=_facts(config),
        config=config,
    )


def compare(path: Path) -> Iterator[Compared]:
    """Every output of a reference file, by name. Raises WeightsDamaged, WeightsMisfit, UnknownChoice."""
    reference = read_reference(path)
    if not reference.outputs:
        raise WeightsDamaged(f"{path} holds no output to compare with", hint="see `vidx encoders check --help`")
    try:
        own = _own_outputs(reference)
    except VidxError:
        raise
    except Exception as error:  # what a network does with inputs or facts that don't fit it
        reason = (str(error).strip().splitlines() or [""])[0]
        raise WeightsDamaged(
            f"{path} can't be run ({type(error).__name__}: {reason[:160]})", hint="its inputs or facts don't fit"
        ) from error
    for name, expected in sorted(reference.outputs.items()):
        tolerance = _tolerance(name, expected, reference.family)
        if name not in own:
            yield Compared(name, float("nan"), tolerance, f"the {reference.family} encoder has no such output")
        elif own[name].shape != expected.shape or expected.numel() == 0:
            shapes = f"{tuple(own[name].shape)}, not {tuple(expected.shape)}"
            yield Compared(name, float("nan"), tolerance, f"its shape is {shapes}")
        else:
            difference = (own[name].double() - expected.double()).abs().max().item()
            yield Compared(name, difference, tolerance)


def _own_outputs(reference: Reference) -> Mapping[str, Tensor]:
    if reference.family == "preprocess":
        from vidx.encoders import _views

        return _views.reference_outputs(reference.inputs, reference.config)
    if reference.family not in (families := available("encoders")):
        raise UnknownChoice(f"no encoder family {reference.family!r}", hint=f"choose from: {', '.join(families)}")
    family = load("encoders", reference.family)
    with torch.inference_mode():
        network = family.from_state_dict(reference.sections, text_state=reference.text_state, **reference.facts)
        outputs: Mapping[str, Tensor] = family.reference_outputs(network, reference.inputs, reference.facts)
    return outputs


def _facts(config: Mapping[str, Any]) -> dict[str, Any]:
    facts = {_FACTS[key]: value for key, value in config.items() if key in _FACTS}
    return facts | {"temporal": "tsm"} if config.get("tsm") else facts


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _tolerance(name: str, expected: Tensor, family: str) -> float:
    if name.endswith("_u8"):
        return _TOLERANCE_LEVELS
    if name.startswith(_SCALED) and family != "movinet":
        return _TOLERANCE_SCALED
    if name.endswith("_norm") or "probs" in name or name.startswith("logits"):
        return _TOLERANCE
    return _TOLERANCE * max(1.0, expected.abs().max().item() if expected.numel() else 0.0)
