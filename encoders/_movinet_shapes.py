"""Reads from the names and shapes of a MoViNet's tensors what network they belong to."""

from __future__ import annotations

import re
from collections import defaultdict
from statistics import mode

import torch
import torch.nn.functional as F
from torch import nn

from vidx.encoders._checkpoint import State, assign, require
from vidx.encoders._facts import Facts
from vidx.encoders._movinet_network import (
    Block,
    Convolution,
    HalvingPool,
    Kernel,
    Layer,
    MoViNet,
    SqueezeExcite,
    hard_sigmoid,
)
from vidx.errors import WeightsMisfit

_RGB = 3
_POINT = (1, 1, 1)
_BLOCK = re.compile(r"blocks\.b(\d+)_l(\d+)\.")


def movinet_network(state: State, what: str, facts: Facts) -> MoViNet:
    """A network that has exactly these tensors, on their device. Raises WeightsMisfit."""
    with torch.device("meta"):
        network = _Reader(state, what, facts).network()
    assign(network, state, what)
    return network


class _Reader:
    """Where tensors of one layer contradict each other most of them are believed, so that the wrong one is named."""

    def __init__(self, state: State, what: str, facts: Facts) -> None:
        self._state, self._what, self._facts = state, what, facts
        self._widths: dict[str, list[int]] = defaultdict(list)  # channels out, as each tensor of a layer has them
        for key, tensor in state.items():
            if tensor.ndim:
                self._widths[key.partition(".conv_1.")[0]].append(len(tensor))
        self._flat = sum(".conv2d." in key for key in state) > sum(".conv3d." in key for key in state)
        self._kind = "conv2d" if self._flat else "conv3d"
        form = "2plus1d" if self._flat else "3d"
        if facts.conv_type not in (None, form):
            raise WeightsMisfit(f"this {what} has convolutions of the form {form}, not {facts.conv_type}")
        self._activation = F.hardswish if self._flat else F.silu
        self._gate = hard_sigmoid if self._flat else torch.sigmoid
        self._blocks = self._block_names()
        self._causal = self._is_causal() if facts.causal is None else facts.causal

    def network(self) -> MoViNet:
        width = self._width("conv1")
        conv1 = self._layer("conv1", _RGB, width, stride=2)
        blocks = {}
        for name in self._blocks:
            blocks[name.removeprefix("blocks.")] = self._block(name, width)
            width = self._width(f"{name}.project")
        pooled = self._width("conv7")
        hidden = self._width("classifier.0", self._shape(self._weight("classifier.3"))[1])
        n_classes = self._facts.num_classes or self._width("classifier.3")
        return MoViNet(
            conv1,
            blocks,
            self._point("conv7", width, pooled, activated=True),
            self._point("classifier.0", pooled, hidden, bias=True),
            self._point("classifier.3", hidden, n_classes, bias=True),
            causal=self._causal,
        )

    def _block(self, name: str, n_in: int) -> Block:
        width, n_out = self._width(f"{name}.expand"), self._width(f"{name}.project")
        hidden = self._width(f"{name}.se.fc1", self._shape(self._weight(f"{name}.se.fc2"))[1])
        strided = any(key.startswith(f"{name}.res.1.") for key in self._state)
        res: nn.Module | None = None
        if strided:
            res = nn.Sequential(HalvingPool(), self._point(f"{name}.res.1", n_in, n_out))
        elif n_in != n_out or any(key.startswith(f"{name}.res.0.") for key in self._state):
            res = nn.Sequential(self._point(f"{name}.res.0", n_in, n_out))
        squeezed = 2 * width if self._causal else width
        return Block(
            self._point(f"{name}.expand", n_in, width, activated=True),
            self._layer(f"{name}.deep", width, width, stride=2 if strided else 1, groups=width),
            SqueezeExcite(
                self._point(f"{name}.se.fc1", squeezed, hidden, bias=True),
                self._point(f"{name}.se.fc2", hidden, width, bias=True),
                self._activation,
                self._gate,
            ),
            self._point(f"{name}.project", width, n_out),
            res,
        )

    def _point(self, name: str, n_in: int, n_out: int, *, bias: bool = False, activated: bool = False) -> Layer:
        """A layer that looks at one pixel of one frame."""
        activation = self._activation if activated else None
        return Layer(Convolution(n_in, n_out, _POINT, flat=self._flat, bias=bias, activation=activation))

    def _layer(self, name: str, n_in: int, n_out: int, *, stride: int, groups: int = 1) -> Layer:
        """A layer that looks at neighbours, in space or in time."""

        def convolution(channels: int, kernel: Kernel, stride: int) -> Convolution:
            return Convolution(
                channels, n_out, kernel, flat=self._flat, stride=stride, groups=groups, activation=self._activation
            )

        *_, height, width = self._shape(self._weight(name))
        n_frames = 1 if self._flat else self._n_frames(self._weight(name))
        first = convolution(n_in, (n_frames, height, width), stride)
        if not any(key.startswith(f"{name}.conv_2.") for key in self._state):
            return Layer(first)
        n_frames = self._n_frames(f"{name}.conv_2.{self._kind}.weight")
        return Layer(first, convolution(n_out, (n_frames, 1, 1), 1))

    def _n_frames(self, key: str) -> int:
        n_frames = self._shape(key)[2]
        if n_frames % 2 == 0:
            raise WeightsMisfit(f"this is no {self._what}: {key} looks at {n_frames} frames, not an odd number")
        return n_frames

    def _width(self, layer: str, *more: int) -> int:
        require((self._weight(layer),), self._state, self._what)
        return mode([*self._widths[layer], *more])

    def _weight(self, layer: str) -> str:
        return f"{layer}.conv_1.{self._kind}.weight"

    def _shape(self, key: str) -> tuple[int, ...]:
        """The shape of a convolution's weights."""
        require((key,), self._state, self._what)
        shape = tuple(self._state[key].shape)
        if len(shape) != (4 if self._flat else 5):
            raise WeightsMisfit(f"this is no {self._what}: {key} has the shape {shape}, which no such layer has")
        return shape

    def _block_names(self) -> list[str]:
        """All up to the last of each stage; none may be missing."""
        last: dict[int, int] = defaultdict(int)
        for match in filter(None, map(_BLOCK.match, self._state)):
            last[int(match[1])] = max(last[int(match[1])], int(match[2]))
        names = []
        for stage in range(max(last, default=0) + 1):
            for layer in range(last[stage] + 1):
                names.append(f"blocks.b{stage}_l{layer}")
                require((f"{names[-1]}.alpha",), self._state, self._what)
        return names

    def _is_causal(self) -> bool:
        """A causal block weighs its channels by two means of each."""
        squeezed = ((self._shape(self._weight(f"{name}.se.fc1"))[1], name) for name in self._blocks)
        return mode(n_in == 2 * self._width(f"{name}.expand") for n_in, name in squeezed)
