"""The tokenizer of `shapes`: byte pairs of its own captions, so that any text has tokens and few are needed."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from vidx.encoders._small_tokens import END, PAD, START
from vidx.train.shapes.captions import draw_caption
from vidx.train.shapes.data import stream
from vidx.train.shapes.scenes import draw_contents

_ENTRIES = 600
_CAPTIONS = 8000
_SEED = 7


def new_tokenizer() -> Tokenizer:
    """Trained on captions; the same each time."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_ENTRIES - 3, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    random = stream(_SEED)
    captions = [draw_caption(random, draw_contents(random)).text for _ in range(_CAPTIONS)]
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.add_special_tokens([PAD, START, END])
    return tokenizer
