"""Encoders against what the original implementations returned, and `vidx encoders check`, which tells."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from vidx.cli_encoders import encoders as command
from vidx.encoders import actionclip, clip, text4vis
from vidx.encoders._heads import Mean, Recurrent, TemporalTransformer
from vidx.encoders._reference import compare
from vidx.errors import WeightsMisfit

pytestmark = [
    pytest.mark.slow,  # networks and their libraries take seconds to import
    pytest.mark.usefixtures("one_thread"),
]

FOLDER = Path(__file__).parents[2] / "shared" / "reference"
FILES = sorted(FOLDER.glob("*.safetensors"))
CONFIG = {"T": 3, "vision_heads": 2, "transformer_heads": 1}


@pytest.mark.skipif(not FILES, reason="the reference files are not beside this repository")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_output_of_the_original_is_reproduced(path: Path) -> None:
    compared = list(compare(path))
    assert compared
    assert {c.output for c in compared} == {key[7:] for key in load_file(path) if key.startswith("output.")}
    assert [c for c in compared if not c.within] == []


def small_clip(n_tokens: int = 100) -> dict[str, torch.Tensor]:
    """A CLIP of one layer a side, widths 128 and 64, pictures of 32 pixels in patches of 16."""
    made = torch.Generator().manual_seed(5)
    shapes = {
        "visual.class_embedding": (128,),
        "visual.positional_embedding": (5, 128),
        "visual.conv1.weight": (128, 3, 16, 16),
        "visual.proj": (128, 64),
        "positional_embedding": (77, 64),
        "text_projection": (64, 64),
        "token_embedding.weight": (n_tokens, 64),
        "logit_scale": (),
    }
    for norm, width in (("visual.ln_pre", 128), ("visual.ln_post", 128), ("ln_final", 64)):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for side, width in (("visual.", 128), ("", 64)):
        block = f"{side}transformer.resblocks.0"
        shapes |= {f"{block}.attn.in_proj_weight": (3 * width, width), f"{block}.attn.in_proj_bias": (3 * width,)}
        shapes |= {f"{block}.attn.out_proj.weight": (width, width), f"{block}.attn.out_proj.bias": (width,)}
        shapes |= {f"{block}.mlp.c_fc.weight": (4 * width, width), f"{block}.mlp.c_fc.bias": (4 * width,)}
        shapes |= {f"{block}.mlp.c_proj.weight": (width, 4 * width), f"{block}.mlp.c_proj.bias": (width,)}
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{block}.{norm}.weight": (width,), f"{block}.{norm}.bias": (width,)}
    return {key: torch.randn(shape, generator=made) * 0.3 for key, shape in shapes.items()}


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    """A reference file made here, of a network whose outputs are its own."""
    return write(tmp_path / "own.safetensors")


def write(path: Path, *, change: dict[str, torch.Tensor] | None = None, **metadata: str) -> Path:
    state = small_clip()
    made = torch.Generator().manual_seed(6)
    tokens = torch.zeros(2, 77, dtype=torch.int64)
    tokens[0, :4], tokens[1, :3] = torch.tensor([98, 7, 8, 99]), torch.tensor([98, 9, 99])
    inputs = {"frames": torch.randn(2, 3, 3, 32, 32, generator=made), "token_ids": tokens}
    with torch.inference_mode():
        network = clip.from_state_dict(state, vision_heads=2, text_heads=1)
        outputs = clip.reference_outputs(network, inputs, {}) | (change or {})
    tensors = {f"state.{key}": tensor for key, tensor in state.items()}
    tensors |= {f"input.{key}": tensor for key, tensor in inputs.items()}
    tensors |= {f"output.{key}": tensor.clone() for key, tensor in outputs.items()}
    facts_there = {"model": "clip", "config": json.dumps(CONFIG), "checkpoint_section": "(bare)"}
    save_file(tensors, path, facts_there | metadata)
    return path


def run(*arguments: Any) -> tuple[int, list[str]]:
    result = CliRunner().invoke(command, ["check", *map(str, arguments)], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.return_value, result.output.splitlines()


def test_a_file_whose_outputs_are_met_passes_and_every_output_has_a_line(own_file: Path) -> None:
    code, lines = run(own_file)
    assert code == 0
    assert len(lines) == 9 + 1
    assert all(line.endswith("ok") for line in lines[:-1])
    assert lines[-1] == "1 files, 9 outputs: 9 within tolerance, 0 beyond, 0 not compared; 0 files failed"


def test_an_output_that_differs_is_beyond_and_the_exit_code_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", change={"text_features": torch.zeros(2, 64)})
    code, lines = run(path)
    assert code == 1
    assert next(line for line in lines if "BEYOND" in line).startswith("x  text_features: ")
    assert "8 within tolerance, 1 beyond" in lines[-1]


@pytest.mark.parametrize(
    ("output", "tensor", "reason"),
    [
        ("entropy", torch.zeros(2), "has no such output"),
        ("text_features", torch.zeros(3, 64), r"its shape is (2, 64), not (3, 64)"),
    ],
)
def test_an_output_that_can_not_be_compared_is_named(
    tmp_path: Path, output: str, tensor: torch.Tensor, reason: str
) -> None:
    code, lines = run(write(tmp_path / "x.safetensors", change={output: tensor}))
    assert code == 1
    assert any(f"{output}: not compared: " in line and reason in line for line in lines)


def test_not_a_number_is_never_within_tolerance(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", change={"text_features_norm": torch.full((2, 64), math.nan)})
    assert run(path)[0] == 1


def test_infinity_is_never_within_tolerance(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", change={"text_features": torch.full((2, 64), math.inf)})
    assert run(path)[0] == 1


def test_a_file_without_outputs_fails(own_file: Path) -> None:
    tensors = {key: tensor for key, tensor in load_file(own_file).items() if not key.startswith("output.")}
    save_file(tensors, own_file, {"model": "clip", "config": json.dumps(CONFIG)})
    code, lines = run(own_file)
    assert code == 1
    assert "holds no output" in lines[0]


@pytest.mark.parametrize(
    ("metadata", "left_out", "told"),
    [
        ({}, "input.token_ids", "KeyError"),
        ({"config": json.dumps({**CONFIG, "vision_heads": 3})}, "", "can't be run"),
        ({"config": json.dumps({**CONFIG, "activation": "relu"})}, "", "no activation 'relu'"),
        ({"config": "[1, 2]"}, "", "no reference file"),
        ({"model": "conse"}, "", "can't be run"),
        ({"model": "preprocess"}, "", "can't be run"),
    ],
)
def test_a_file_that_can_not_be_run_fails_in_one_line_and_the_next_is_compared(
    tmp_path: Path, own_file: Path, metadata: dict[str, str], left_out: str, told: str
) -> None:
    odd = write(tmp_path / "odd.safetensors", **metadata)
    facts = {"model": "clip", "config": json.dumps(CONFIG), "checkpoint_section": "(bare)", **metadata}
    save_file({key: tensor for key, tensor in load_file(odd).items() if key != left_out}, odd, facts)
    code, lines = run(odd, own_file)
    assert code == 1
    assert told in lines[0]
    assert lines[-1].startswith("2 files, 9 outputs: 9 within tolerance")
    assert lines[-1].endswith("1 files failed")


def test_texts_need_no_padding() -> None:
    with torch.inference_mode():
        network = clip.from_state_dict(small_clip())
        tokens = torch.zeros(1, 77, dtype=torch.int64)
        tokens[0, :3] = torch.tensor([98, 9, 99])
        whole, short = network.text_features(tokens), network.text_features(tokens[:, :3])
    torch.testing.assert_close(short, whole)


def with_head(kind: str) -> dict[str, Any]:
    head = {
        "Transf": TemporalTransformer(64, 1, 2, 77, 1e-12),
        "LSTM": Recurrent(64, 77),
        "meanP": Mean(),
    }[kind]
    return {
        "model_state_dict": small_clip(),
        "fusion_model_state_dict": {f"module.{key}": tensor for key, tensor in head.state_dict().items()},
    }


@pytest.mark.parametrize("kind", ["Transf", "LSTM", "meanP"])
def test_a_head_is_known_by_its_tensors_and_must_be_the_one_that_is_asked_for(kind: str) -> None:
    assert actionclip.from_state_dict(with_head(kind), header=kind)
    for other in {"Transf", "LSTM", "meanP", "nonsense"} - {kind}:
        with pytest.raises(WeightsMisfit, match=f"with the head {other}: its tensors are those of"):
            actionclip.from_state_dict(with_head(kind), header=other)


def test_a_file_with_a_temporal_head_is_no_clip_and_no_base_of_text4vis() -> None:
    fine_tuned = with_head("Transf")
    with pytest.raises(WeightsMisfit, match="no CLIP checkpoint: it has a temporal head"):
        clip.from_state_dict(fine_tuned)
    video = {key: tensor for key, tensor in small_clip().items() if key.startswith(("visual.", "logit_scale"))}
    assert text4vis.from_state_dict({"model_state_dict": video}, text_state=small_clip())
    with pytest.raises(WeightsMisfit, match="no CLIP checkpoint: it has a temporal head"):
        text4vis.from_state_dict({"model_state_dict": video}, text_state=fine_tuned)


def test_what_mmengine_saves_beside_a_network_is_no_part_of_it() -> None:
    state = {f"clip.{key}": tensor for key, tensor in small_clip().items()}
    head = TemporalTransformer(64, 1, 2, 3, 1e-5).state_dict()
    state |= {f"adapter.{key}": tensor for key, tensor in head.items()}
    assert actionclip.from_state_dict({"state_dict": {**state, "data_preprocessor.mean": torch.zeros(3)}}).frames == 3
    with pytest.raises(WeightsMisfit, match="has backbone"):
        actionclip.from_state_dict({"state_dict": {**state, "backbone.conv": torch.zeros(3)}})


def test_json_has_a_line_for_every_output_and_one_for_all(own_file: Path) -> None:
    _, lines = run("--json", own_file, own_file)
    told = [json.loads(line) for line in lines]
    assert told[-1] == {"files": 2, "outputs": 18, "beyond_tolerance": 0, "not_compared": 0, "failed": 0}
    assert all(line["within"] and line["difference"] <= line["tolerance"] for line in told[:-1])


def test_heads_come_from_the_facts_of_a_file(tmp_path: Path) -> None:
    """The vision tower is 128 wide: with one head its outputs are others."""
    path = write(tmp_path / "x.safetensors", config=json.dumps({**CONFIG, "vision_heads": 1}))
    assert run(path)[0] == 1


def test_a_file_of_an_unknown_model_fails_and_the_others_are_still_compared(tmp_path: Path, own_file: Path) -> None:
    code, lines = run(write(tmp_path / "x.safetensors", model="resnet"), own_file)
    assert code == 1
    assert lines[0].startswith("x: no encoder family 'resnet'; choose from: ")
    assert lines[-1] == "2 files, 9 outputs: 9 within tolerance, 0 beyond, 0 not compared; 1 files failed"


def test_a_file_without_metadata_fails(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    code, lines = run(tmp_path / "x.safetensors")
    assert code == 1
    assert "is no reference file" in lines[0]


def test_a_file_whose_weights_are_not_all_there_fails(own_file: Path) -> None:
    tensors = load_file(own_file)
    del tensors["state.visual.ln_pre.bias"]
    facts = {"model": "clip", "config": "{}", "checkpoint_section": "(bare)"}
    save_file(tensors, own_file, facts)
    code, lines = run("--json", own_file)
    assert code == 1
    assert "lacks visual.ln_pre.bias" in json.loads(lines[0])["error"]
