"""Message batches: each is answered at once, request by request, at half the price.

The reply to a new batch says that it is under way, as the API's does; whoever asks again finds it ended.
A request that the API would refuse is `errored` and costs nothing.

Source: https://platform.claude.com/docs/en/build-with-claude/batch-processing
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NoReturn
from urllib.parse import parse_qs

from leastwise.messages import JSON
from leastwise.simulate.catalogue import paged
from leastwise.simulate.rules import RefusedError, refuse
from leastwise.simulate.shapes import Batch, misfit
from leastwise.simulate.wire import ENCODE

#: Answers one request under an id of its own, or refuses it.
Answer = Callable[[dict[str, JSON], str], dict[str, JSON]]

LARGEST_BODY_BYTES: Final = 256 * 1024 * 1024
_LIFE_S: Final = 24 * 3600
_CUSTOM_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class _Kept:
    """A batch that has ended: as it is described, and the lines of its results."""

    view: dict[str, JSON]
    lines: bytes


class Batches:
    """The batches of one simulator; safe to share between threads."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._lock = threading.Lock()

    def create(
        self, body: dict[str, JSON], answer: Answer, request_id: str, url: str, now: float
    ) -> dict[str, JSON]:
        """Answer every request of a batch, and return the batch as it was before that.

        Raises:
            RefusedError: the batch itself is not as the API takes it.
        """
        if wrong := misfit(body, Batch):
            refuse(wrong)
        ids = [item["custom_id"] for item in body["requests"]]
        for index, name in enumerate(ids):
            if not _CUSTOM_ID.fullmatch(name):
                refuse(f"requests.{index}.custom_id: {name!r} does not match {_CUSTOM_ID.pattern}")
        if len(set(ids)) < len(ids):
            refuse("requests: custom_id must be unique within the batch")
        lines = [
            {
                "custom_id": item["custom_id"],
                "result": _result(item["params"], answer, f"{request_id}b{index}"),
            }
            for index, item in enumerate(body["requests"])
        ]
        id_ = request_id.replace("req_", "msgbatch_")
        begun = {
            "id": id_,
            "type": "message_batch",
            "processing_status": "in_progress",
            "request_counts": _counts(processing=len(lines)),
            "created_at": _instant(now),
            "ended_at": None,
            "expires_at": _instant(now + _LIFE_S),
            "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": None,
        }
        good = sum(line["result"]["type"] == "succeeded" for line in lines)
        ended = {
            "processing_status": "ended",
            "request_counts": _counts(succeeded=good, errored=len(lines) - good),
            "ended_at": _instant(now),
            "results_url": f"{url}/v1/messages/batches/{id_}/results",
        }
        with self._lock:
            self._kept[id_] = _Kept(begun | ended, b"".join(ENCODE(line) + b"\n" for line in lines))
        return begun

    def retrieve(self, id_: str) -> dict[str, JSON]:
        """Return a batch.

        Raises:
            RefusedError: there is none.
        """
        return self._get(id_).view

    def results(self, id_: str) -> bytes:
        """Return the lines of a batch's results.

        Raises:
            RefusedError: there is none.
        """
        return self._get(id_).lines

    def cancel(self, id_: str) -> NoReturn:
        """Refuse: every batch has ended.

        Raises:
            RefusedError: always.
        """
        refuse(f"Batch {self._get(id_).view['id']} cannot be canceled: it has ended")

    def delete(self, id_: str) -> dict[str, JSON]:
        """Forget a batch.

        Raises:
            RefusedError: there is none.
        """
        self._get(id_)
        with self._lock:
            self._kept.pop(id_, None)
        return {"id": id_, "type": "message_batch_deleted"}

    def page(self, query: str) -> dict[str, JSON]:
        """Return the page that the query asks for, newest first.

        Raises:
            RefusedError: as for models.
        """
        with self._lock:
            found = [kept.view for kept in reversed(self._kept.values())]
        shown, ends = paged([view["id"] for view in found], parse_qs(query), "batch")
        return {"data": found[shown], **ends}

    def _get(self, id_: str) -> _Kept:
        with self._lock:
            found = self._kept.get(id_)
        if found is None:
            refuse(f"batch: {id_}", 404, "not_found_error")
        return found


def _result(params: dict[str, JSON], answer: Answer, request_id: str) -> dict[str, JSON]:
    try:
        return {"type": "succeeded", "message": answer(params, request_id)}
    except RefusedError as refused:
        said = {"type": refused.api_type, "message": str(refused), **refused.details}
        return {"type": "errored", "error": {"type": "error", "error": said, "request_id": request_id}}


def _counts(**some: int) -> dict[str, JSON]:
    return dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0) | some


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
