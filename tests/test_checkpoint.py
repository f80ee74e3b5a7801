"""Weights are read without running what lies in a file, and a network gets all of them or none."""

from __future__ import annotations

import os
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vidx.encoders._checkpoint import assign, read_checkpoint
from vidx.errors import WeightsDamaged, WeightsMisfit

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`torch.jit"),  # OpenAI's files are of its kind all the same
]

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(7)}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.fixture(params=["safetensors", "zip", "legacy"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"weights.{request.param}"
    if request.param == "safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=request.param == "zip")
    return path


def test_every_kind_of_file_gives_the_tensors_that_were_saved(written: Path) -> None:
    assert same(read_checkpoint(written), STATE)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95])
def test_a_file_that_was_cut_is_damaged(written: Path, share: float) -> None:
    whole = written.read_bytes()
    written.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(WeightsDamaged, match="can't be read") as caught:
        read_checkpoint(written)
    assert str(written) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html>not found</html>", b"version https://git-lfs", b"\0" * 64])
def test_what_is_no_file_of_weights_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(WeightsDamaged):
        read_checkpoint(tmp_path / "x.pt")


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(WeightsDamaged, match="No such file"):
        read_checkpoint(tmp_path / "absent.pt")


class Trap:
    """Pickled, it asks whoever loads it to make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_not_run(tmp_path: Path, zipped: bool) -> None:
    torch.save(
        {"model": STATE, "config": Trap(tmp_path / "ran")}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(WeightsDamaged, match=r"it asks for \w+\.mkdir, which could run code"):
        read_checkpoint(tmp_path / "x.pt")
    assert not (tmp_path / "ran").exists()


def test_a_settings_object_of_yacs_is_read_as_a_dictionary_without_yacs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X-CLIP's released files hold one beside the weights."""
    package, module = types.ModuleType("yacs"), types.ModuleType("yacs.config")

    class CfgNode(dict):  # type: ignore[type-arg]
        pass

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    module.CfgNode = CfgNode  # type: ignore[attr-defined]
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "yacs", package)
        patched.setitem(sys.modules, "yacs.config", module)
        config = CfgNode(MODEL=CfgNode(ARCH="ViT-B/32"), LR=8e-6)
        config.__dict__["__immutable__"] = True
        torch.save({"model": STATE, "config": config}, tmp_path / "x.pth")
    loaded = read_checkpoint(tmp_path / "x.pth")
    assert same(loaded["model"], STATE)
    assert loaded["config"]["MODEL"]["ARCH"] == "ViT-B/32"
    assert "yacs" not in sys.modules


@pytest.mark.parametrize("number", [np.float64(80.4), np.float32(1.5), np.int64(7)])
def test_numbers_of_numpy_beside_the_weights_do_no_harm(tmp_path: Path, number: np.generic) -> None:
    torch.save({"model": STATE, "max_accuracy": number}, tmp_path / "x.pth")
    loaded = read_checkpoint(tmp_path / "x.pth")
    assert same(loaded["model"], STATE)
    assert loaded["max_accuracy"] == number


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"<!DOCTYPE html><html>not found</html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "no file of weights, or was cut"),
        (b"PK\x03\x04 and then nothing", "it was cut"),
    ],
)
def test_what_is_no_file_of_weights_is_named(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(WeightsDamaged, match=told):
        read_checkpoint(tmp_path / "x.pt")


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("count", torch.tensor(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


def test_the_tensors_of_a_torchscript_archive_are_read_and_its_code_is_not(tmp_path: Path) -> None:
    module = nn.Sequential(Inner(), nn.LayerNorm(2)).half()
    torch.jit.save(torch.jit.trace(module.float(), torch.zeros(1, 3)), tmp_path / "x.pt")
    assert same(read_checkpoint(tmp_path / "x.pt"), module.state_dict())


def test_a_torchscript_archive_that_asks_for_anything_else_is_refused(tmp_path: Path) -> None:
    import zipfile

    torch.jit.save(torch.jit.trace(Inner(), torch.zeros(1, 3)), tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as archive, zipfile.ZipFile(tmp_path / "y.pt", "w") as altered:
        for name in archive.namelist():
            content = archive.read(name)
            altered.writestr(name, pickle.dumps(Trap(tmp_path / "ran")) if name.endswith("/data.pkl") else content)
    with pytest.raises(WeightsDamaged, match="mkdir"):
        read_checkpoint(tmp_path / "y.pt")
    assert not (tmp_path / "ran").exists()


def network() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {key: torch.zeros(tensor.shape, dtype=tensor.dtype) for key, tensor in module.state_dict().items()}


def test_half_precision_becomes_single_and_counters_stay_whole() -> None:
    module = network()
    assign(module, {**state_of(module), "0.weight": torch.ones(2, 3, dtype=torch.float16)}, "toy")
    assert module.state_dict()["0.weight"].dtype == torch.float32
    assert module.state_dict()["1.num_batches_tracked"].dtype == torch.int64
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_missing_weights_are_named() -> None:
    module, state = network(), state_of(network())
    del state["1.bias"]
    with pytest.raises(WeightsMisfit, match=r"no toy, or it was cut: it lacks 1\.bias"):
        assign(module, state, "toy")


def test_many_missing_weights_are_counted() -> None:
    with pytest.raises(WeightsMisfit, match="and 4 more"):
        assign(network(), {}, "toy")


def test_weights_that_are_left_over_are_named() -> None:
    with pytest.raises(WeightsMisfit, match=r"has 2\.weight that such a network lacks"):
        assign(network(), {**state_of(network()), "2.weight": torch.zeros(1)}, "toy")


def test_weights_of_another_shape_are_named_with_both_shapes() -> None:
    with pytest.raises(WeightsMisfit, match=r"0\.weight of another shape: \(3, 3\) where \(2, 3\) is needed"):
        assign(network(), {**state_of(network()), "0.weight": torch.zeros(3, 3)}, "toy")
