"""One JSON object an answer; the fields are those of schema.records, `version` changes when their meaning does."""

from __future__ import annotations

import json
from dataclasses import asdict

from vidx.schema.records import Answer

VERSION = 1


def to_text(answer: Answer) -> str:
    """The answer as one line of JSON."""
    fields = asdict(answer)
    del fields["thumbnails"]
    return json.dumps({"version": VERSION, **fields}, ensure_ascii=False)
