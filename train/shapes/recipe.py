"""How `shapes` is trained: single frames first, then clips with captions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from vidx.encoders._small_tokens import small_token_ids
from vidx.encoders._towers import unit
from vidx.encoders._xclip_network import XCLIPNetwork
from vidx.pixels import HALF
from vidx.train.loop import moved
from vidx.train.shapes.data import (
    FIELDS,
    FRAMES,
    NOTHING,
    SIDE_PX,
    Clips,
    captions_of,
    clips,
    fitting,
    stream,
    told_numbers,
)
from vidx.train.shapes.network import Heads, Size, new_network
from vidx.train.shapes.scenes import MOTIONS, OF_TWO
from vidx.train.shapes.states import FrameStates, frame_states, state_loss
from vidx.train.shapes.tokens import new_tokenizer

_FRAMES, _CLIPS, _TESTS = 1, 2, 3  # streams of random numbers of a seed
_STATE_SHARE, _FACT_SHARE = 0.25, 0.3
_MOST_SCALE = 100.0
_TWO = [MOTIONS.index(motion) for motion in OF_TWO]
_TEST_CLIPS = 256


class FrameBatch(NamedTuple):
    """Single frames uint8 (N, 1, side, side, 3) and what they show."""

    pictures: Tensor
    states: FrameStates


class ClipBatch(NamedTuple):
    """Clips uint8 (N, T, side, side, 3), a caption for each, and what is true of both (see `data`)."""

    pictures: Tensor
    states: FrameStates
    contents: Tensor  # int64 (N, 2, 3)
    tokens: Tensor  # int64 (N, L)
    told: Tensor  # int64 (N, 2, 3)
    fits: Tensor  # bool (N captions, N clips)


class Shapes(nn.Module):
    """The network and the heads that are dropped afterwards."""

    def __init__(self, size: Size, vocabulary: int, frames: int) -> None:
        super().__init__()
        self.network: XCLIPNetwork = new_network(size, vocabulary, frames)
        self.heads = Heads(size)

    @property
    def device(self) -> torch.device:
        """Where it is trained."""
        return self.network.logit_scale.device

    def videos(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (N, d) of clips, and what its vision tower makes of frames (N * T, w) and patches (N * T, P, w).

        A network of one frame sees each by itself, and a clip's feature is their mean.
        """
        frames = ((pictures.float() / 255 - HALF.mean[0]) / HALF.std[0]).permute(0, 1, 4, 2, 3)
        model, network = self.network.model, self.network
        seen = model.vision_model(pixel_values=frames.flatten(0, 1))
        features = network.integrated(model.visual_projection(seen.pooler_output).unflatten(0, (-1, network.frames)))
        videos = features.unflatten(0, (len(pictures), -1)).mean(dim=1)
        return videos, seen.pooler_output, seen.last_hidden_state[:, 1:]

    def forward(self, batch: FrameBatch | ClipBatch) -> dict[str, Tensor]:
        """Losses by name."""
        if isinstance(batch, FrameBatch):
            _, of_frames, of_patches = self.videos(batch.pictures)
            return state_loss(self.heads.frame(of_frames), self.heads.patch(of_patches), batch.states)
        videos, of_frames, of_patches = self.videos(batch.pictures)
        texts = self.network.text_features(batch.tokens)
        states = state_loss(self.heads.frame(of_frames), self.heads.patch(of_patches), batch.states)
        scale = self.network.logit_scale.exp().clamp(max=_MOST_SCALE)
        return {
            "contrast": contrast(scale * unit(texts) @ unit(videos).T, batch.fits),
            "video_facts": _FACT_SHARE * self._fact_loss(videos, _ordered(batch.contents), batch.contents >= -1),
            "text_facts": _FACT_SHARE * self._fact_loss(texts, batch.told, batch.told != NOTHING),
            **{name: _STATE_SHARE * loss for name, loss in states.items()},
        }

    def _fact_loss(self, features: Tensor, facts: Tensor, counts: Tensor) -> Tensor:
        """Cross-entropy of the two things' fields, of which (N, 2, 3) some count; NOTHING is a class of its own."""
        losses = []
        for number, head in enumerate(self.heads.facts):
            thing, field = divmod(number, len(FIELDS))
            wanted = torch.where(facts[:, thing, field] == NOTHING, len(FIELDS[field]), facts[:, thing, field])
            counted = counts[:, thing, field].float()
            loss = F.cross_entropy(head(features), wanted, reduction="none")
            losses.append((loss * counted).sum() / counted.sum().clamp(min=1))
        return torch.stack(losses).sum()


def contrast(scores: Tensor, fits: Tensor) -> Tensor:
    """CLIP's loss (Radford et al. 2021, figure 3) of (captions, clips) where a caption may fit several clips."""
    wanted = fits.float()
    by_text = -(wanted / wanted.sum(1, keepdim=True) * scores.log_softmax(1)).sum(1).mean()
    by_video = -(wanted / wanted.sum(0, keepdim=True) * scores.log_softmax(0)).sum(0).mean()
    return (by_text + by_video) / 2


def _ordered(contents: Tensor) -> Tensor:
    """Of two things that act alike the one whose colour comes first is first."""
    alike = torch.isin(contents[:, 0, 2], torch.tensor(_TWO, device=contents.device))
    swaps = alike & (contents[:, 0, 1] > contents[:, 1, 1])
    return torch.where(swaps[:, None, None], contents.flip(1), contents)


class FrameRecipe:
    """The first part: what single frames show."""

    decides = None  # the rate falls to nothing: the last weights are the best, by more than this test can tell

    def __init__(self, module: Shapes, size: Size, seed: int, at_once: int) -> None:
        self.module, self._cells = module, SIDE_PX // size.patch_px
        self._seed, self._at_once = seed, at_once
        self._tests = self._made(stream(seed, _TESTS, 1), _TEST_CLIPS)

    def batch(self, number: int) -> FrameBatch:
        """See `vidx.train.loop.Recipe`."""
        return self._made(stream(self._seed, _FRAMES, number), self._at_once)

    def _made(self, random: np.random.Generator, n: int) -> FrameBatch:
        made = clips(random, n, frames=1)
        return FrameBatch(torch.from_numpy(made.pictures), frame_states(made.scenes, self._cells))

    def evaluate(self) -> dict[str, float]:
        """How many shapes the frame vector and the patches tell right."""
        tests = moved(self._tests, self.module.device)
        _, of_frames, of_patches = self.module.videos(tests.pictures)
        states = tests.states
        guessed = self.module.heads.frame(of_frames).unflatten(1, (states.shown.shape[1], -1))
        is_shown, covered = states.shown > 0, states.patch_colours > 0
        patches = self.module.heads.patch(of_patches)[..., 1 + len(FIELDS[1]) :][..., : len(FIELDS[0])]
        return {
            "shapes": _share(guessed[..., -len(FIELDS[0]) :][is_shown].argmax(-1) == states.shapes[is_shown]),
            "patch_shapes": _share(patches[covered].argmax(-1) == states.patch_shapes[covered]),
        }

    def weights(self) -> Mapping[str, Tensor]:
        """Heads too: the second part begins with them."""
        return self.module.state_dict()


class ClipRecipe:
    """The second part: clips and their captions."""

    decides = None  # as above

    def __init__(self, module: Shapes, size: Size, tokenizer: Tokenizer, seed: int, at_once: int) -> None:
        self.module, self._tokenizer, self._cells = module, tokenizer, SIDE_PX // size.patch_px
        self._seed, self._at_once = seed, at_once
        self._tests = self._made(stream(seed, _TESTS, 2), _TEST_CLIPS)

    def batch(self, number: int) -> ClipBatch:
        """See `vidx.train.loop.Recipe`."""
        return self._made(stream(self._seed, _CLIPS, number), self._at_once)

    def _made(self, random: np.random.Generator, n: int) -> ClipBatch:
        made: Clips = clips(random, n, frames=FRAMES)
        captions = captions_of(random, made.scenes)
        told = told_numbers(captions)
        ids = small_token_ids(self._tokenizer, [caption.text for caption in captions])
        return ClipBatch(
            torch.from_numpy(made.pictures),
            frame_states(made.scenes, self._cells),
            *(torch.from_numpy(array) for array in (made.contents, ids, told, fitting(told, made.contents))),
        )

    def evaluate(self) -> dict[str, float]:
        """How often a caption finds a clip that it fits, and what the video's feature tells of the first thing."""
        tests = moved(self._tests, self.module.device)
        videos, _, _ = self.module.videos(tests.pictures)
        scores = unit(self.module.network.text_features(tests.tokens)) @ unit(videos).T
        best = scores.topk(5, dim=1).indices
        hits = tests.fits.gather(1, best)
        facts = _ordered(tests.contents)[:, 0]
        guesses = [head(videos).argmax(-1) for head in self.module.heads.facts[: len(FIELDS)]]
        told = {
            name: _share(guess == facts[:, at])
            for at, (name, guess) in enumerate(zip(("shape", "colour", "motion"), guesses, strict=True))
        }
        return {"recall_1": _share(hits[:, 0]), "recall_5": _share(hits.any(1)), **told}

    def weights(self) -> Mapping[str, Tensor]:
        """Without the heads, under transformers' names."""
        return self.module.network.model.state_dict()


def _share(right: Tensor) -> float:
    return float(right.float().mean())


def new_shapes(size: Size, seed: int, *, frames: int) -> tuple[Shapes, Tokenizer]:
    """A network with random weights, and its tokenizer."""
    torch.manual_seed(seed)
    tokenizer = new_tokenizer()
    return Shapes(size, tokenizer.get_vocab_size(), frames), tokenizer
