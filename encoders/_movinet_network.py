"""MoViNet's network: inverted bottlenecks over whole clips or over a stream.

Kondratyuk et al. 2021 (arXiv:2103.11511); numerically as Atze00/MoViNet-pytorch movinets/models.py, with its names of
tensors. Activations are (B, C, T, H, W) throughout and time is never strided. What the causal form remembers from one
call to the next is a value in the caller's hands, not part of the network.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BATCH_NORM_EPS = 1e-3
_DROPOUT = 0.2  # before the last layer, in training

Activation = Callable[[Tensor], Tensor]
Kernel = tuple[int, int, int]  # frames, height, width


def hard_sigmoid(values: Tensor) -> Tensor:
    """Keras' hard sigmoid; torch's has a slope of 1/6."""
    return (0.2 * values + 0.5).clamp(0, 1)


@dataclass(frozen=True)
class StreamState:
    """What a causal network remembers of `n_frames` frames; `held` is in the order in which its layers run.

    Of every convolution over k > 1 frames the last k - 1 frames of its input, (B, C, k - 1, H, W); of every running
    mean the sum so far, (B, C, 1, 1, 1).
    """

    n_frames: int
    held: tuple[Tensor, ...]


class Memory:
    """A stream during one call: tells layers what came before and gathers the state after."""

    def __init__(self, before: StreamState | None, n_frames: int) -> None:
        self._n_before = before.n_frames if before else 0
        self._n_after = self._n_before + n_frames
        self._before = iter(before.held) if before else None
        self._after: list[Tensor] = []

    def state(self) -> StreamState:
        """What the next call begins with, once all layers have run."""
        return StreamState(self._n_after, tuple(self._after))

    def with_past(self, frames: Tensor, n_past: int) -> Tensor:
        """The frames and the `n_past` ones before them, which are zeros where the stream begins."""
        joined = torch.cat([self._taken(frames, n_past), frames], dim=2)
        # A copy, because a view would keep all these frames in memory until the next call.
        self._after.append(joined[:, :, -n_past:].detach().clone())
        return joined

    def running_mean(self, values: Tensor) -> Tensor:
        """For every frame the mean over the stream up to it; (B, C, T, 1, 1) to the same shape."""
        sums = self._taken(values, 1) + values.cumsum(dim=2)
        self._after.append(sums[:, :, -1:].detach().clone())
        counts = torch.arange(self._n_before + 1, self._n_after + 1, device=values.device)
        return sums / counts.view(-1, 1, 1)

    def _taken(self, like: Tensor, n_frames: int) -> Tensor:
        shape = (*like.shape[:2], n_frames, *like.shape[3:])
        if self._before is None:
            return like.new_zeros(shape)
        held = next(self._before, None)
        if held is None or held.shape != shape:
            raise ValueError("a stream goes on with the network, the number of videos and the size it began with")
        return held


class Convolution(nn.Module):
    """A convolution, its normalisation (else a bias) and its activation.

    Height and width are padded as TensorFlow's `same` does. The weights of a flat one, which looks at pixels or at
    frames but not at both, are stored with two dimensions of kernel.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        kernel: Kernel,
        *,
        flat: bool,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        activation: Activation | None = None,
    ) -> None:
        super().__init__()
        self.n_out, self.activation = n_out, activation
        self._kernel, self._stride, self._groups, self._flat = kernel, stride, groups, flat
        self._over_frames = flat and kernel[0] > 1
        if flat:
            stored = (kernel[0], 1) if self._over_frames else kernel[1:]
            self.conv2d = nn.Conv2d(n_in, n_out, stored, groups=groups, bias=bias)
        else:
            self.conv3d = nn.Conv3d(n_in, n_out, kernel, groups=groups, bias=bias)
        self.norm = None if bias else nn.BatchNorm3d(n_out, eps=_BATCH_NORM_EPS)

    def forward(self, frames: Tensor, memory: Memory | None = None) -> Tensor:
        n_past = self._kernel[0] - 1
        if n_past and memory is not None:
            frames = memory.with_past(frames, n_past)
        elif n_past:
            frames = F.pad(frames, (0, 0, 0, 0, n_past // 2, n_past // 2))
        values = self._convolved(frames)
        if self.norm is not None:
            values = self.norm(values)
        return values if self.activation is None else self.activation(values)

    def _convolved(self, frames: Tensor) -> Tensor:
        size = frames.shape[3:]
        if self._over_frames:  # ten times faster on a CPU than a convolution in three dimensions
            values = F.conv2d(frames.flatten(3), self.conv2d.weight, self.conv2d.bias, groups=self._groups)
            return values.unflatten(3, size)
        height, width = (_same(n, k, self._stride) for n, k in zip(size, self._kernel[1:], strict=True))
        conv = self.conv2d if self._flat else self.conv3d
        weight = conv.weight.unsqueeze(2) if self._flat else conv.weight
        stride = (1, self._stride, self._stride)
        return F.conv3d(F.pad(frames, (*width, *height)), weight, conv.bias, stride, groups=self._groups)


def _same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after, TensorFlow's `same`: as many outputs as strides fit, the larger half after."""
    total = max(kernel - (size % stride or stride), 0)
    return total // 2, total - total // 2


class Layer(nn.Module):
    """One convolution, or one over pixels and one over frames."""

    def __init__(self, conv_1: Convolution, conv_2: Convolution | None = None) -> None:
        super().__init__()
        self.conv_1, self.conv_2 = conv_1, conv_2

    def forward(self, frames: Tensor, memory: Memory | None = None) -> Tensor:
        values: Tensor = self.conv_1(frames, memory)
        return values if self.conv_2 is None else self.conv_2(values, memory)


class SqueezeExcite(nn.Module):
    """Scales channels by what they hold on average; in a stream, by what they have held and hold in each frame."""

    def __init__(self, fc1: Layer, fc2: Layer, activation: Activation, gate: Activation) -> None:
        super().__init__()
        self.fc1, self.fc2, self.activation, self.gate = fc1, fc2, activation, gate

    def forward(self, frames: Tensor, memory: Memory | None) -> Tensor:
        if memory is None:
            mean = frames.mean(dim=(2, 3, 4), keepdim=True)
        else:
            now = frames.mean(dim=(3, 4), keepdim=True)
            mean = torch.cat([memory.running_mean(now), now], dim=1)
        return frames * self.gate(self.fc2(self.activation(self.fc1(mean))))


class HalvingPool(nn.Module):
    """Averages 3 x 3 neighbours at every second pixel, counting only those inside the picture."""

    def forward(self, frames: Tensor) -> Tensor:
        rows, columns = frames.shape[3:]
        ones = torch.ones(1, 1, 1, rows, columns, dtype=frames.dtype, device=frames.device)

        def ninth_of_sums(maps: Tensor) -> Tensor:
            """Even sides get a row or column of zeros at their end, odd ones one on both sides."""
            return F.avg_pool3d(F.pad(maps, (columns % 2, 1, rows % 2, 1)), (1, 3, 3), (1, 2, 2))

        return ninth_of_sums(frames) / ninth_of_sums(ones)


class Block(nn.Module):
    """Expand, convolve each channel, weigh the channels, project, and add to the shortcut, scaled by `alpha`."""

    def __init__(self, expand: Layer, deep: Layer, se: SqueezeExcite, project: Layer, res: nn.Module | None) -> None:
        super().__init__()
        self.expand, self.deep, self.se, self.project, self.res = expand, deep, se, project, res
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, frames: Tensor, memory: Memory | None) -> Tensor:
        shortcut: Tensor = frames if self.res is None else self.res(frames)
        values = self.se(self.deep(self.expand(frames, memory), memory), memory)
        return shortcut + self.alpha * self.project(values, memory)


class MoViNet(nn.Module):
    """Clips (B, 3, T, H, W), RGB from 0 to 1, to logits (B, classes); the causal form also piece by piece."""

    def __init__(
        self, conv1: Layer, blocks: Mapping[str, Block], conv7: Layer, dense: Layer, last: Layer, *, causal: bool
    ) -> None:
        super().__init__()
        self.conv1, self.conv7, self.causal = conv1, conv7, causal
        self.n_classes = last.conv_1.n_out
        self.blocks = nn.ModuleDict(blocks)
        self.classifier = nn.Sequential(dense, nn.SiLU(), nn.Dropout(_DROPOUT), last)

    def forward(self, video: Tensor) -> Tensor:
        """Logits of whole clips."""
        return self._logits(video, Memory(None, video.shape[2]) if self.causal else None)

    def step(self, video: Tensor, state: StreamState | None = None) -> tuple[Tensor, StreamState]:
        """Logits after the next frames of some streams, and the state to go on with; None is where they begin.

        Any split of a video gives the same last logits. Raises ValueError for a network that is not causal, for no
        frames, and for a state of other streams.
        """
        if not self.causal:
            raise ValueError("only a causal network takes a video piece by piece")
        if not video.shape[2]:
            raise ValueError("a stream goes on by at least one frame")
        memory = Memory(state, video.shape[2])
        return self._logits(video, memory), memory.state()

    def stream(self, pieces: Iterable[Tensor], state: StreamState | None = None) -> Tensor:
        """Logits (B, pieces, classes) after each of successive pieces of the same videos."""
        after = []
        for piece in pieces:
            logits, state = self.step(piece, state)
            after.append(logits)
        return torch.stack(after, dim=1)

    def _logits(self, video: Tensor, memory: Memory | None) -> Tensor:
        *_, logits = deque((values for _, values in self.stages(video, memory)), maxlen=1)
        return logits

    def stages(self, video: Tensor, memory: Memory | None) -> Iterator[tuple[str, Tensor]]:
        """The values after each part, in order, under their names in the reference files."""
        values = self.conv1(video, memory)
        yield "conv1", values
        for block in self.blocks.values():
            values = block(values, memory)
        yield "blocks", values
        values = self.conv7(values, memory)
        yield "conv7", values
        values = values.mean(dim=(3, 4), keepdim=True)
        values = values.mean(dim=2, keepdim=True) if memory is None else memory.running_mean(values)[:, :, -1:]
        yield "pooled", values
        yield "logits", self.classifier(values).flatten(1)
