"""Class names of published data sets, in the order of their class numbers.

From the lists that whwu95/Text4Vis (Kinetics-400, UCF101, HMDB51, ActivityNet 1.3) and microsoft/VideoX (Kinetics-600)
publish, as they are.
"""

from __future__ import annotations

import re
from importlib.resources import files

LABEL_SETS = ("kinetics400", "kinetics600", "ucf101", "hmdb51", "activitynet")


def published_names(label_set: str) -> list[str]:
    """The class names of one of LABEL_SETS as they were published."""
    path = files("vidx.encoders").joinpath(f"_data/labels/{label_set}.txt")
    return path.read_text(encoding="utf-8").splitlines()


def names_as_words(label_set: str) -> list[str]:
    """The class names of one of LABEL_SETS as people would write them."""
    names = [as_words(name) for name in published_names(label_set)]
    return [name.lower() for name in names] if label_set == "ucf101" else names  # whose capitals only mark words


def as_words(name: str) -> str:
    """`ApplyEyeMakeup` to `apply eye makeup`, `brush_hair` to `brush hair`; what is neither stays as it is."""
    spaced = " ".join(name.replace("_", " ").split())
    if re.fullmatch(r"(?:[A-Z][a-z]+){2,}", spaced):
        return " ".join(re.findall(r"[A-Z][a-z]+", spaced)).lower()
    return spaced
