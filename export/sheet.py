"""A contact sheet: the stored picture of each hit with rank, score, time and name, as one PNG."""

from __future__ import annotations

import io
import math
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vidx.export import clock, shown, written
from vidx.schema.records import Answer, Hit

_PICTURE_PX = (160, 120)
_MARGIN_PX = 10
_TEXT_PX = 14
_CELL_PX = (_PICTURE_PX[0] + 2 * _MARGIN_PX, _PICTURE_PX[1] + 2 * _MARGIN_PX + 2 * (_TEXT_PX + 2))
_COLUMNS = 5
_BACKGROUND, _INK, _EMPTY = (24, 24, 26), (230, 230, 230), (60, 60, 64)


def to_file(answer: Answer, path: Path) -> None:
    """Write the sheet; hits without a stored picture get an empty frame. Raises InputError where it can't be saved."""
    columns = min(_COLUMNS, max(1, len(answer.hits)))
    rows = max(1, math.ceil(len(answer.hits) / columns))
    head = _TEXT_PX + 2 * _MARGIN_PX
    sheet = Image.new("RGB", (columns * _CELL_PX[0], head + rows * _CELL_PX[1]), _BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT_PX)
    draw.text((_MARGIN_PX, _MARGIN_PX), _fitted(shown(answer.query), sheet.width - 2 * _MARGIN_PX, font), _INK, font)
    for number, (hit, thumbnail) in enumerate(zip(answer.hits, answer.thumbnails, strict=True)):
        corner = (number % columns * _CELL_PX[0], head + number // columns * _CELL_PX[1])
        _draw_cell(sheet, draw, font, corner, hit, thumbnail)
    with written(path) as out:
        sheet.save(out, "PNG")


def _draw_cell(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    corner: tuple[int, int],
    hit: Hit,
    thumbnail: bytes | None,
) -> None:
    left, top = corner[0] + _MARGIN_PX, corner[1] + _MARGIN_PX
    draw.rectangle((left, top, left + _PICTURE_PX[0] - 1, top + _PICTURE_PX[1] - 1), fill=_EMPTY)
    if thumbnail is not None:
        picture = Image.open(io.BytesIO(thumbnail)).convert("RGB")
        picture.thumbnail(_PICTURE_PX)
        sheet.paste(
            picture, (left + (_PICTURE_PX[0] - picture.width) // 2, top + (_PICTURE_PX[1] - picture.height) // 2)
        )
    below = top + _PICTURE_PX[1] + 2
    draw.text((left, below), f"{hit.rank}  {hit.score:.2f}  {clock(hit.start_s)}", _INK, font)
    name = shown(hit.path.rsplit("/", 1)[-1])
    draw.text((left, below + _TEXT_PX + 2), _fitted(name, _PICTURE_PX[0], font), _INK, font)


def _fitted(text: str, width_px: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """Text cut in its middle to a width, so that the end of a name stays readable."""
    if font.getlength(text) <= width_px:
        return text

    def cut(keep: int) -> str:
        return f"{text[: keep - keep // 2]}…{text[len(text) - keep // 2 :]}"

    fits, too_many = 0, len(text)
    while too_many - fits > 1:
        keep = (fits + too_many) // 2
        fits, too_many = (keep, too_many) if font.getlength(cut(keep)) <= width_px else (fits, keep)
    return cut(fits)
