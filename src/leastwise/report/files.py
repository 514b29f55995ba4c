"""What kind of file somebody handed us, and how its bad lines are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from leastwise.errors import LogError

Kind = Literal["usage", "messages"]
#: Told the number and the fault of each line that cannot be read; the rest is read on.
OnBad = Callable[[int, str], None]

_HEAD_BYTES: Final = 65_536
_BOM: Final = b"\xef\xbb\xbf"

ACCEPTED: Final = (
    "Accepted are the console's usage export (CSV with usage_date_utc, model_version, ... as "
    "downloaded under Analytics > Usage) and Messages requests, one JSON object a line: "
    '{"request": {...}, "response": {...}, "at": "..."} as leastwise.record() writes them, or '
    "bare request bodies"
)


def kind_of(path: Path) -> Kind:
    """Return what kind of file this is, by its first line that is not empty.

    Raises:
        LogError: it cannot be opened, is empty, or is of no kind we know.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise unreadable(path, error) from None
    text = head.removeprefix(_BOM).lstrip()
    first = text.split(b"\n", 1)[0]
    if not text:
        message = f"{path}: the file is empty. {ACCEPTED}"
        raise LogError(message)
    if first.startswith(b"{"):
        return "messages"
    if b"usage_date_utc" in first:
        return "usage"
    if first.startswith(b"["):
        message = f"{path}: one JSON array; write one object a line: jq -c '.[]' {path.name}. {ACCEPTED}"
        raise LogError(message)
    message = f"{path}: begins with {first[:40].decode('utf-8', 'replace')!r}. {ACCEPTED}"
    raise LogError(message)


def unreadable(path: Path, error: OSError) -> LogError:
    """Return the error for a file that the operating system refuses."""
    return LogError(f"{path}: {error.strerror or type(error).__name__}; check the path and who may read it")
