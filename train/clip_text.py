"""How Text4Vis, ActionCLIP and X-CLIP are trained on videos of classes: their losses, what is frozen, how they begin.

Wu et al. 2023 (arXiv:2207.01297; whwu95/Text4Vis, train.py), Wang et al. 2021 (arXiv:2109.08472; sallymmx/ActionCLIP,
train.py and utils/KLLoss.py), Ni et al. 2022 (arXiv:2208.02816; microsoft/VideoX X-CLIP, main.py). Left out here are
the authors' mixtures of videos and labels, label smoothing, RandAugment and AutoAugment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidx.encoders._frames_network import FramesNetwork
from vidx.encoders._heads import ANY_FRAMES, EPS_MMACTION2, EPS_ORIGINAL, TemporalTransformer
from vidx.encoders._registry import TEST_SCALE
from vidx.encoders._tokenizer import token_ids
from vidx.encoders._towers import HEAD_WIDTH, unit
from vidx.encoders._xclip_network import XCLIPNetwork
from vidx.train.classifier import Batch, Classifier, ClassifierRecipe

Network = FramesNetwork | XCLIPNetwork

_TEXTS_AT_ONCE = 64
_MATCH = 10.0  # of ActionCLIP's matrix of what belongs together, before its softmax
_HEAD_LAYERS = 6
_STD = 0.02
_PROMPT_LAYERS, _PROMPT_SHARE = 2, 0.1


class FixedTexts(Classifier):
    """Videos against the texts of all classes, which were encoded once: Text4Vis and X-CLIP, cross-entropy.

    `scores` gives logits (B, K) of colours (B, T, 3, side, side) and text features (K, d).
    """

    def __init__(
        self,
        network: Network,
        scores: Callable[[Tensor, Tensor], Tensor],
        tokens: Tensor,
        normalise: str,
        frozen: Sequence[nn.Module],
    ) -> None:
        """`tokens` int64 (K, L), one text for each class."""
        super().__init__(network, lambda _, colours: scores(colours, self.get_buffer("texts")), normalise, frozen)
        self.register_buffer("texts", encoded(network, tokens), persistent=False)


def text4vis_module(network: FramesNetwork, tokens: Tensor, normalise: str) -> FixedTexts:
    """The text tower is frozen; exp(logit_scale) times the cosine. `tokens` int64 (1, K, L)."""
    assert network.text is not None

    def scores(colours: Tensor, texts: Tensor) -> Tensor:
        return network.logits(network.video_features(colours), texts)

    return FixedTexts(network, scores, tokens[0], normalise, [network.text])


def xclip_module(network: XCLIPNetwork, tokens: Tensor, normalise: str) -> FixedTexts:
    """Texts adjusted to each video; the text tower and the scale are frozen. `tokens` int64 (1, K, L)."""

    def scores(colours: Tensor, texts: Tensor) -> Tensor:
        frames, context = network.towers(colours)
        return network.logits(network.integrated(frames), network.adjusted(texts, context))

    frozen = [network.model.text_model, network.model.text_projection]
    module = FixedTexts(network, scores, tokens[0], normalise, frozen)
    network.logit_scale.requires_grad_(False)
    return module


class Matching(Classifier):
    """ActionCLIP: which clips and texts of a batch belong together; both towers train."""

    def __init__(self, network: FramesNetwork, tokens: Tensor, normalise: str) -> None:
        """`tokens` int64 (P, K, L), a text for each template and class."""
        super().__init__(network, lambda _, colours: network.video_features(colours), normalise)
        self.register_buffer("tokens", tokens, persistent=False)

    def train(self, mode: bool = True) -> Matching:
        """As of any module. Texts are encoded again after it."""
        self._texts: Tensor | None = None
        super().train(mode)
        return self

    def logits(self, pictures: Tensor) -> Tensor:
        """Logarithms (B, K) of probabilities, the mean over templates as in ActionCLIP's test.py; see `Classifier`."""
        videos = unit(super().logits(pictures))
        cosines = torch.einsum("bd,pkd->bpk", videos, self._class_texts())
        return (TEST_SCALE * cosines).log_softmax(2).logsumexp(1) - math.log(cosines.shape[1])

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`matching_loss` with a text of each clip's class in a random template."""
        network, tokens = self.network, self.get_buffer("tokens")
        assert isinstance(network, FramesNetwork)
        templates = torch.randint(len(tokens), batch.labels.shape).to(tokens.device)
        texts = network.text_features(tokens[templates, batch.labels])
        return {"matching": matching_loss(network.logits(super().logits(batch.pictures), texts), batch.labels)}

    def _class_texts(self) -> Tensor:
        """(P, K, d) of unit norm, of the towers as they are now."""
        if self._texts is None:
            tokens = self.get_buffer("tokens")
            assert isinstance(self.network, FramesNetwork)
            self._texts = unit(encoded(self.network, tokens.flatten(0, 1))).unflatten(0, tokens.shape[:2])
        return self._texts


def matching_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Kullback-Leibler divergence of a batch's matches from the softmax of logits (B clips, B texts), both ways' mean.

    A row of the matches is a softmax over 10 where labels int64 (B,) are equal and 0 elsewhere: it sums to one
    (KLLoss.py).
    """
    matches = (_MATCH * (labels[:, None] == labels).float()).softmax(1)
    found = [F.kl_div(side.float().log_softmax(1), matches, reduction="batchmean") for side in (logits, logits.T)]
    return (found[0] + found[1]) / 2


@torch.no_grad()
def encoded(network: Network, tokens: Tensor) -> Tensor:
    """Text features (N, d) of token ids int64 (N, L)."""
    parts = tokens.to(network.logit_scale.device).split(_TEXTS_AT_ONCE)
    return torch.cat([network.text_features(part) for part in parts])


def class_tokens(templates: Sequence[str], names: Sequence[str]) -> Tensor:
    """int64 (templates, names, L)."""
    ids = token_ids([template.replace("{}", name) for template in templates for name in names])
    return torch.from_numpy(ids.reshape(len(templates), len(names), -1).astype(np.int64))


class TextRecipe(ClassifierRecipe):
    """See `vidx.train.loop.Recipe`: weights are kept in names that the family's `from_state_dict` takes."""

    def weights(self) -> Mapping[str, Tensor]:
        """See `state_of`."""
        network = self.module.network
        assert isinstance(network, Network)
        return state_of(network)


def state_of(network: Network) -> dict[str, Tensor]:
    """All tensors by one name each: X-CLIP's in transformers' names, others in OpenAI's, heads below `fusion_model.`.

    A network of MMAction2, whose LayerNorm is another, keeps the names by which it is known.
    """
    if isinstance(network, XCLIPNetwork):
        return dict(network.model.state_dict())
    head = network.head.state_dict()
    if isinstance(network.head, TemporalTransformer) and _eps_of(network.head) == EPS_MMACTION2:
        return _below("clip.", clip_state(network)) | _below("adapter.", head)
    return clip_state(network) | _below("fusion_model.", head)


def clip_state(network: FramesNetwork) -> dict[str, Tensor]:
    """The CLIP of a network, in OpenAI's names."""
    assert network.text is not None
    visual = _below("visual.", network.visual.state_dict())
    return {**visual, **network.text.state_dict(), "logit_scale": network.logit_scale.detach()}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: tensor for key, tensor in tensors.items()}


def _eps_of(head: TemporalTransformer) -> float:
    norms = [part for part in head.transformer.modules() if isinstance(part, nn.LayerNorm)]
    return norms[0].eps


def begun_with_clip(network: FramesNetwork, family: str, frames: int, seed: int) -> dict[str, Tensor]:
    """The tensors of a new network of a family: a CLIP's, and new ones of what it lacks as the authors begin them."""
    assert network.text is not None
    state = clip_state(network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if family == "xclip":
            return state | _new_xclip_parts(network, frames)
        return state | _below("fusion_model.", _new_head(network.dim, network.text.heads))


def _new_head(width: int, heads: int) -> dict[str, Tensor]:
    """ActionCLIP modules/Visual_Prompt.py, visual_prompt.init_weights; Text4Vis' is the same."""
    head = TemporalTransformer(width, heads, _HEAD_LAYERS, ANY_FRAMES, EPS_ORIGINAL)
    _begin(head, nn.init.normal_)
    nn.init.normal_(head.frame_position_embeddings.weight, std=_STD)
    return head.state_dict()


def _begin(module: nn.Module, drawn: Callable[..., Tensor]) -> None:
    """Linear layers, that behind attention too, get small weights and no bias; the rest begins as in torch."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            drawn(part.weight, std=_STD)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def _new_xclip_parts(network: FramesNetwork, frames: int) -> dict[str, Tensor]:
    """X-CLIP models/cct.py, mit.py, prompt.py and xclip.py, with the settings of its `build_model`."""
    visual = network.visual.state_dict()
    width, dim = visual["proj"].shape
    layers = {key.split(".")[2] for key in visual if key.startswith("transformer.resblocks.")}
    state: dict[str, Tensor] = {}
    for number in sorted(layers):
        message = nn.ModuleDict(
            {
                "message_fc": nn.Linear(width, width),
                "message_ln": nn.LayerNorm(width),
                "message_attn": nn.MultiheadAttention(width, width // HEAD_WIDTH),
            }
        )
        state |= _below(f"visual.transformer.resblocks.{number}.", message.state_dict())
    integrate, adjust = _new_block(dim), nn.ModuleList(_new_prompt_layer(dim) for _ in range(_PROMPT_LAYERS))
    for part in (integrate, adjust):
        _begin(part, nn.init.trunc_normal_)
    state |= _below("mit.resblocks.0.", integrate.state_dict()) | _below(
        "prompts_generator.decoder.", adjust.state_dict()
    )
    state |= _below("prompts_generator.norm.", nn.LayerNorm(dim).state_dict())
    state |= _below("prompts_visual_ln.", nn.LayerNorm(width).state_dict())
    return state | {
        "mit.positional_embedding": nn.init.trunc_normal_(torch.empty(1, frames, dim), std=_STD),
        "prompts_visual_proj": torch.randn(width, dim),
        "prompts_generator.alpha": torch.full((dim,), _PROMPT_SHARE),
    }


def _new_block(dim: int) -> nn.Module:
    mlp = nn.ModuleDict({"c_fc": nn.Linear(dim, 4 * dim), "c_proj": nn.Linear(4 * dim, dim)})
    attention = nn.MultiheadAttention(dim, dim // HEAD_WIDTH)
    return nn.ModuleDict({"attn": attention, "ln_1": nn.LayerNorm(dim), "mlp": mlp, "ln_2": nn.LayerNorm(dim)})


def _new_prompt_layer(dim: int) -> nn.Module:
    inputs = {f"{letter}_proj": nn.Linear(dim, dim, bias=False) for letter in "qkv"}
    attention = nn.ModuleDict({**inputs, "proj": nn.Linear(dim, dim)})
    mlp = nn.ModuleDict({"0": nn.Linear(dim, 4 * dim), "3": nn.Linear(4 * dim, dim)})
    return nn.ModuleDict({"cross_attn": attention, "norm1": nn.LayerNorm(dim), "norm3": nn.LayerNorm(dim), "mlp": mlp})
