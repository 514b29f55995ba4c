"""Lines of plain text in columns, at most 80 wide."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

from leastwise.money import NUSD_PER_USD, show

WIDTH: Final = 80
_LABEL: Final = 13  # where the text beside a label begins
_UNBROKEN: Final = "\u00a0"  # no white space to `textwrap`
_MIN_CLIPPED: Final = 6  # a name cut shorter than this says nothing


def aligned(rows: Sequence[Sequence[str]], sides: str, *, width: int = WIDTH) -> list[str]:
    """Return rows as lines with their columns aligned, two spaces apart, or one where they must.

    When even that is too long, the longest left-aligned column gives way, its cells cut
    with a `~`; figures are never cut.

    Args:
        rows: Cells, the same number in each row.
        sides: One letter a column: `l`eft or `r`ight.
        width: The longest line wanted.
    """
    widths = _widths(rows)
    gaps = len(sides) - 1
    between = "  " if sum(widths) + 2 * gaps <= width else " "
    while sum(widths) + gaps > width:
        cuttable = [i for i, side in enumerate(sides) if side == "l" and widths[i] > _MIN_CLIPPED]
        if not cuttable:
            break
        widths[max(cuttable, key=lambda column: widths[column])] -= 1
    return [_line(row, widths, sides, between) for row in rows]


def fits(rows: Sequence[Sequence[str]], *, width: int = WIDTH) -> bool:
    """Tell whether rows can be aligned without cutting a cell."""
    widths = _widths(rows)
    return sum(widths) + len(widths) - 1 <= width


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def _line(row: Sequence[str], widths: Sequence[int], sides: str, between: str) -> str:
    cells = []
    for cell, width, side in zip(row, widths, sides, strict=True):
        text = cell if len(cell) <= width else cell[: width - 1] + "~"
        cells.append(text.ljust(width) if side == "l" else text.rjust(width))
    return between.join(cells).rstrip()


def labelled(label: str, text: str, *, width: int = WIDTH) -> list[str]:
    """Return `text` beside a label, wrapped, its further lines under the first."""
    label = label if len(label) < width - _LABEL else f"{label[: width - _LABEL - 1]}~"
    return textwrap.wrap(
        text,
        width,
        initial_indent=f"{label:<{_LABEL - 1}} ",
        subsequent_indent=" " * _LABEL,
        break_long_words=False,
        break_on_hyphens=False,
    )


def labelled_items(label: str, items: Sequence[str], *, width: int = WIDTH) -> list[str]:
    """Return items beside a label, three spaces apart, wrapped between them and never inside one."""
    whole = "   ".join(item.replace(" ", _UNBROKEN) for item in items)
    return [line.replace(_UNBROKEN, " ") for line in labelled(label, whole, width=width)]


def wrapped(text: str, *, width: int = WIDTH, indent: int = 0) -> list[str]:
    """Return `text` as lines, all but the first indented."""
    return textwrap.wrap(
        text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )


def dollars(nusd: int, largest: int) -> str:
    """Return an amount without its sign of currency, for a column whose largest is `largest`."""
    return show(nusd, 2 if abs(largest) >= NUSD_PER_USD else 6).replace("$", "")


def amount(nusd: int, largest: int) -> str:
    """Return an amount such as `$0.126872`, with digits that tell it from others up to `largest`."""
    return show(nusd, 6 if nusd and abs(largest) < NUSD_PER_USD else None)


def percent(part: int, whole: int, places: int = 0) -> str:
    """Return a share such as `36%` or `36.3%`, `-` of nothing, `<1%` for what would round to none."""
    if whole == 0:
        return "-"
    text = f"{100 * part / whole:.{places}f}%"
    is_hidden = part != 0 and float(text[:-1]) == 0
    return f"<{10**-places:g}%" if is_hidden else text


def share(part: int, whole: int) -> float | None:
    """Return a share for machines, to a millionth; None of nothing."""
    return round(part / whole, 6) if whole else None


def plural(number: int, noun: str) -> str:
    """Return `1 call`, `2,000 calls`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
