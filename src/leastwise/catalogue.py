"""What upstreams last said of their models, kept in a file for each in the user's cache folder.

The shipped table (`models`) is as old as the release; an upstream knows today's limits,
what each model accepts and when it retires. Nobody waits for that: `doctor` and `init`
ask when they are run, a drop-in client once a day, in a thread of its own, beside the
calls. A file that is missing, unreadable or garbled means that nothing was said.

Source: https://platform.claude.com/docs/en/api/models-list
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec

from leastwise.models import Models, load_models

_log: Final = logging.getLogger(__name__)
_FRESH_S: Final = 24 * 3600
_KEPT: Final = ("id", "line", "lifecycle", "retires_at", "max_input_tokens", "max_tokens", "capabilities")

Row = Mapping[str, Any]


class Catalogue:
    """The listings of models, one for each upstream's address.

    Args:
        folder: Where they are kept; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def file(self, base_url: str) -> Path | None:
        """Return where the listing of the upstream at `base_url` is kept, there or not."""
        digest = sha256(base_url.rstrip("/").encode()).hexdigest()[:16]
        return None if self._folder is None else self._folder / f"models-{digest}.json"

    def is_fresh(self, base_url: str, now: float) -> bool:
        """Tell whether the upstream was asked within a day; where nothing can be kept, it always was."""
        file = self.file(base_url)
        try:
            return file is None or 0 <= now - file.stat().st_mtime < _FRESH_S
        except OSError:
            return False

    def keep(self, base_url: str, rows: Iterable[Row], now: float) -> None:
        """Keep what the upstream at `base_url` says; what cannot be written is logged."""
        file = self.file(base_url)
        if file is None:
            return
        kept = [{name: row[name] for name in _KEPT if name in row} for row in rows]
        draft = file.with_suffix(f".{os.getpid()}")
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.write_bytes(msgspec.json.encode(kept))
            os.utime(draft, (now, now))
            draft.replace(file)
        except OSError as error:
            _log.info("the listing of models is not kept in %s: %s", file, error.strerror)

    def over(self, models: Models, base_urls: Iterable[str]) -> Models:
        """Return `models` with what the upstreams at these addresses said of them."""
        for base_url in dict.fromkeys(base_urls):
            models = models.refreshed(self._read(base_url))
        return models

    def _read(self, base_url: str) -> list[Row]:
        file = self.file(base_url)
        try:
            return [] if file is None else msgspec.json.decode(file.read_bytes(), type=list[dict[str, Any]])
        except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
            return []


def known_models(folder: Path | None, base_urls: Iterable[str]) -> Models:
    """Return the models as shipped, with what the upstreams at these addresses last said of them."""
    return Catalogue(folder).over(load_models(), base_urls)
