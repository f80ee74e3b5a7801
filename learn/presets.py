"""Published tables as presets: which encoders, tested how, and what their authors measured."""

from __future__ import annotations

from dataclasses import dataclass

from vidx.learn.protocols import AS_AUTHORS, Wish


@dataclass(frozen=True)
class Row:
    """One line of a table; `published` are top-1 and top-5 in per cent."""

    title: str
    encoder: str
    published: tuple[float | None, float | None]
    wish: Wish = AS_AUTHORS


@dataclass(frozen=True)
class Preset:
    """A table on one data set. `split` is as `vidx.learn.datasets.read_splits` has it."""

    dataset: str
    split: str
    rows: tuple[Row, ...]
    source: str


@dataclass(frozen=True)
class Example:
    """One video and the published probabilities of some labels for it."""

    encoder: str
    template: str
    probabilities: dict[str, float]
    source: str


_PERSON = ("a video of a person {}.",)
_EIGHT = Wish(frames=8, sampling="starts", templates=_PERSON)
# Two interleaved sets of eight frames, whose similarities are averaged.
_SIXTEEN = Wish(views=(2, 1), frames=8, sampling="interleaved", fusion="similarities", templates=_PERSON)

PRESETS = {
    "hmdb51-8frame-linspace": Preset(
        dataset="hmdb51",
        split="pooled",
        rows=(
            Row("Text4Vis ViT-B/32", "text4vis-vitb32-f8", (48.1699, None), _EIGHT),
            Row("Text4Vis ViT-B/32, 16 frames", "text4vis-vitb32-f8", (48.58, None), _SIXTEEN),
            Row("Text4Vis ViT-L/14", "text4vis-vitl14-f8", (52.5926, None), _EIGHT),
            Row("OpenAI CLIP ViT-B/32", "clip-vitb32", (44.2702, None), _EIGHT),
            Row("OpenAI CLIP ViT-L/14", "clip-vitl14", (55.0109, None), _EIGHT),
            Row("OpenCLIP ViT-B/32", "clip:ViT-B-32/laion2b_s34b_b79k", (41.3072, None), _EIGHT),
            Row("OpenCLIP ViT-L/14", "clip:ViT-L-14/laion2b_s32b_b82k", (48.5185, None), _EIGHT),
        ),
        source="HMDB51, zero-shot, test videos of the three splits pooled; published January 2023",
    ),
    "actionclip-mmaction2-kinetics400": Preset(
        dataset="kinetics400",
        split="full",
        rows=(
            Row("ViT-B/32, 8 clips x 1 crop", "actionclip-mmaction2-vitb32-8f", (77.6, 93.8)),
            Row("ViT-B/16, 8 clips x 1 crop", "actionclip-mmaction2-vitb16-8f", (80.3, 95.2)),
            Row("ViT-B/16, 16 clips x 1 crop", "actionclip-mmaction2-vitb16-16f", (81.1, 95.6)),
            Row("ViT-B/16, 32 clips x 1 crop", "actionclip-mmaction2-vitb16-32f", (81.3, 95.8)),
            Row("ViT-B/32, 8 x 1, trained there", "actionclip-mmaction2-vitb32-8f-trained", (77.5, 93.2)),
            Row("ViT-B/16, 8 x 1, trained there", "actionclip-mmaction2-vitb16-8f-trained", (81.3, 95.2)),
        ),
        source="open-mmlab/mmaction2 projects/actionclip: clips of one frame, 8, 16 or 32 of a video",
    ),
}
EXAMPLES = {
    "actionclip-mmaction2-example": Example(
        encoder="actionclip-mmaction2-vitb32-8f",
        template="The woman is {}",
        probabilities={"singing": 0.9995, "dancing": 5.364e-07, "performing": 6.666e-04},
        source="open-mmlab/mmaction2 projects/actionclip, its zero-shot example on its test.mp4",
    )
}
