"""Listening to a batch's results while the caller reads them: at their end the batch is settled."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from leastwise.batch import Results
from leastwise.errors import UpstreamFailure
from leastwise.sdk.taps import attach

_log: Final = logging.getLogger(__name__)


def hear(payload: Any, response: Any, results: Results, write: Callable[..., None]) -> None:
    """Have `results` read the HTTP response inside the SDK's `payload`, and `write` what it finds."""
    attach(response, _Reading(results, write))
    if hasattr(payload, "_raw_iterator"):  # a decoder's, made before anybody listened
        is_async = hasattr(payload, "__anext__")
        payload._raw_iterator = response.aiter_bytes() if is_async else response.iter_bytes()  # noqa: SLF001 - the SDK's


class _Reading:
    """Hears the results; what does not reach their end leaves the worst case charged."""

    def __init__(self, results: Results, write: Callable[..., None]) -> None:
        self._results: Results | None = results
        self._write = write

    def feed(self, chunk: bytes) -> None:
        """Read the next bytes."""
        self._do(lambda results: results.feed(chunk))

    def finish(self, failure: UpstreamFailure | None = None) -> None:
        """Settle the batch, unless `failure` cut its results short."""
        if failure is None:
            self._do(lambda results: self._write(*results.finish()))
        self._results = None

    def leave(self) -> None:
        """Whoever reads a part of them only settles nothing."""

    abandon = leave

    def _do(self, what: Callable[[Results], None]) -> None:
        """Do something with the results, until that fails."""
        if self._results is not None:
            try:
                what(self._results)
            except Exception as error:  # noqa: BLE001 - the caller gets the results, whatever we make of them
                self._results = None
                name = type(error).__name__
                _log.error("results of a batch cannot be read (%s): it stays charged at its most", name)
