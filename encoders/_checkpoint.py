"""Reading files of weights without running anything that lies in them, and giving a network exactly what it needs."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidx.encoders._weights import damaged_hint
from vidx.errors import WeightsDamaged, WeightsMisfit

State = dict[str, Tensor]

_NAMED = 3  # keys that a message names before it counts the rest
_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}
# Accuracies and counts that NumPy computed and training scripts save beside the weights.
_SCALAR: Any = np.float64(0).__reduce__()[0]
_NUMBERS: list[Any] = [
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *(np.dtype, *(type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4"))),
]
_REBUILT = ("torch._utils", "_rebuild_tensor_v2")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A file of weights as it was saved: sections and tensors by name.

    Takes safetensors, files of `torch.save`, and TorchScript archives (of which the tensors alone are read). Raises
    WeightsDamaged for what is none of them, was cut, or would run code to be read.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(16)
        if head[8:9] == b"{":
            from safetensors.torch import load_file

            return dict(load_file(path))
        if zipfile.is_zipfile(path) and (state := _torchscript(path)) is not None:
            return dict(state)
        # X-CLIP's files keep their settings in a yacs node: a dictionary, which is all that is made of it here.
        with torch.serialization.safe_globals([(OrderedDict, "yacs.config.CfgNode"), *_NUMBERS]):
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=head[:2] == b"PK")
    except OSError as error:
        raise WeightsDamaged(f"{path} can't be read: {error.strerror or error}", hint="check the path") from error
    except Exception as error:  # each library has its own
        raise WeightsDamaged(
            f"{path} can't be read as weights: {_reason(error, head, path)}", hint=damaged_hint(path)
        ) from error
    if not isinstance(loaded, Mapping):
        raise WeightsDamaged(f"{path} holds no weights by name", hint="give the file as its authors released it")
    return dict(loaded)


def _reason(error: Exception, head: bytes, path: Path) -> str:
    """In a few words: what the libraries say is long, and advises to load without care."""
    text = str(error)
    if head.lstrip()[:1] == b"<":
        return "it is a web page"
    if asked := re.search(r"GLOBAL ([\w.]+)|it asks for ([\w.]+)", text):
        return f"it asks for {asked[1] or asked[2]}, which could run code"
    if head[:2] == b"PK" and not zipfile.is_zipfile(path):
        return "it was cut"
    if isinstance(error, pickle.UnpicklingError | EOFError):
        return "it is no file of weights, or was cut"
    return (text.strip().splitlines() or [type(error).__name__])[0][:160]


def assign(network: nn.Module, state: State, what: str, *, unused: Collection[str] = ()) -> None:
    """Give a network these tensors, floating ones in single precision; it may have been made on the meta device.

    Every tensor must find its place and every place its tensor, apart from `unused` keys, which released files carry
    and the network does not use. Raises WeightsMisfit.
    """
    own = network.state_dict()
    wrong = [key for key in own if key in state and own[key].shape != state[key].shape]
    require(own.keys(), state, what)
    if left := [key for key in state if key not in own and key not in unused]:
        raise WeightsMisfit(f"this is no {what}: it has {_some(left)} that such a network lacks", hint=_HINT)
    if wrong:
        shapes = f"{tuple(state[wrong[0]].shape)} where {tuple(own[wrong[0]].shape)} is needed"
        raise WeightsMisfit(f"this is no {what}: {_some(wrong)} of another shape: {shapes}", hint=_HINT)
    own_types = {key: state[key].float() if state[key].is_floating_point() else state[key] for key in own}
    network.load_state_dict(own_types, assign=True)
    network.requires_grad_(False).eval()


def require(keys: Collection[str], state: Mapping[str, Any], what: str) -> None:
    """Raises WeightsMisfit naming the keys that are not there."""
    if missing := [key for key in keys if key not in state]:
        raise WeightsMisfit(f"this is no {what}, or it was cut: it lacks {_some(missing)}", hint=_HINT)


def layers_in(state: Mapping[str, Any], prefix: str) -> int:
    """How many numbered layers there are below `prefix`."""
    numbers = {key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)}
    return len([number for number in numbers if number.isdigit()])


_HINT = "see `vidx encoders` for what each encoder takes"


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return ", ".join(keys[:_NAMED]) + more


# TorchScript (OpenAI's CLIP): an archive whose data.pkl is a tree of modules. Loading it as TorchScript would prepare
# its code for running; here a tree of plain attributes is made of it, and the tensors are taken from that.


class _Attributes:
    """Stands for a module of any class."""

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {})


class _TreeUnpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, reader: Any) -> None:
        super().__init__(file)
        self._reader = reader

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == _REBUILT:
            return torch._utils._rebuild_tensor_v2
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch.jit._pickle":  # typed lists, of which nothing is needed
            return _nothing
        if module.startswith("__torch__"):
            return _Attributes
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        _, dtype, key, _, n_elements = pid
        n_bytes = n_elements * torch._utils._element_size(dtype)
        storage = self._reader.get_storage_from_record(f"data/{key}", n_bytes, torch.UntypedStorage)
        untyped = storage._typed_storage()._untyped_storage
        return torch.storage.TypedStorage(wrap_storage=untyped, dtype=dtype, _internal=True)


def _nothing(*_: Any) -> None:
    return None


def _torchscript(path: Path) -> State | None:
    """The tensors of a TorchScript archive by name; None for other archives."""
    reader = torch._C.PyTorchFileReader(str(path))
    if "constants.pkl" not in reader.get_all_records():
        return None
    state: State = {}

    def collect(node: _Attributes, prefix: str) -> None:
        for name, value in vars(node).items():
            if isinstance(value, Tensor):
                state[prefix + name] = value
            elif isinstance(value, _Attributes):
                collect(value, f"{prefix}{name}.")

    collect(_TreeUnpickler(io.BytesIO(reader.get_record("data.pkl")), reader).load(), "")
    return state
