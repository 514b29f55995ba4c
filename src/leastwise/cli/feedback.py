"""`leastwise feedback`: say whether an answer was good."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from leastwise.build import existing_store, word_on
from leastwise.cli.console import FAILED, OK, AsJson, ConfigFile, print_either, print_json, say, say_next
from leastwise.config import Config, load
from leastwise.errors import ConfigError, StoreError
from leastwise.ladder import Ladder
from leastwise.ledger import Feedback, Source
from leastwise.report.feedback import Row, feedback_json, feedback_lines, read_feedback, scores_of
from leastwise.report.files import OnBad, unreadable
from leastwise.report.table import plural
from leastwise.stores import Store

_AT_ONCE: Final = 500  # rows of a file in one transaction


def feedback(
    call: Annotated[str | None, Parameter(help="Its exchange id, msg_... id or request-id.")] = None,
    /,
    *,
    ok: Annotated[
        bool, Parameter(negative=(), show_default=False, help="The answer was acceptable.")
    ] = False,
    bad: Annotated[bool, Parameter(negative=(), show_default=False, help="It was not.")] = False,
    note: Annotated[str, Parameter(help="What to remember of it; kept in the ledger.")] = "",
    source: Annotated[
        Source,
        Parameter(help="Who says so; user goes before tests, and tests before agreement."),
    ] = "user",
    file: Annotated[
        Path | None,
        Parameter(name="--from", help="Many at once: CSV or JSON lines with id, ok and perhaps note."),
    ] = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> int:
    """Say whether an answer was good.

    It counts in the calibration of the checks that gave it a score, and for its tier or against it.
    """
    settings = load(config)
    if file is not None:
        if call is not None or ok or bad or note:
            message = "--from stands without a call, --ok, --bad and --note: each row says its own"
            raise ConfigError(message)
        return _all_of(file, settings, source, as_json=as_json)
    if call is None or ok is bad:
        message = "say of one call whether it was good: leastwise feedback ID --ok, or --bad; or --from FILE"
        raise ConfigError(message)
    with existing_store(settings) as store:
        if store is None:
            raise _unknown(settings)
        at, where = time.time(), settings.store.shown
        word = word_on(
            store, settings.ladder, call.strip(), ok=ok, source=source, at=at, note=note, where=where
        )
        store.add_feedback(word.feedback)
    print_either(feedback_json(word), feedback_lines(word), as_json=as_json)
    say_next(f"leastwise why {word.story.exchange.id}" if bad else _after(is_scored=bool(scores_of(word))))
    return OK


def _after(*, is_scored: bool) -> str:
    return "leastwise tune calibrate --dry-run" if is_scored else "leastwise tune table"


def _unknown(settings: Config) -> StoreError:
    return StoreError(
        f"there is no ledger yet, so no call that anything can be said of: {settings.store.shown}"
    )


# --- a file ------------------------------------------------------------------------------------------


def _all_of(file: Path, settings: Config, source: Source, *, as_json: bool) -> int:
    """Keep what a file says; each row that cannot be kept is told, and the rest is kept."""
    wrong: list[int] = []

    def on_bad(line: int, fault: str) -> None:
        wrong.append(line)
        say(f"{file.name}:{line}: {fault}")

    try:
        opened = file.open("rb")
    except OSError as error:
        raise unreadable(file, error) from None
    with opened, existing_store(settings) as store:
        if store is None:
            raise _unknown(settings)
        kept = scored = good = 0
        rows = read_feedback(opened, file.name, on_bad)
        while some := list(islice(rows, _AT_ONCE)):
            words = list(_words(some, store, settings.ladder, source, on_bad))
            store.add_feedback(*(word for word, _ in words))
            kept += len(words)
            good += sum(word.ok for word, _ in words)
            scored += sum(is_scored for _, is_scored in words)
    value: dict[str, Any] = {"report": "feedback", "kept": kept, "ok": good, "bad": kept - good}
    if as_json:
        print_json({**value, "scored": scored, "wrong_lines": wrong})
    else:
        told = f"{plural(kept, 'answer')}: {good:,} ok, {kept - good:,} bad; {scored:,} of them have a score"
        sys.stdout.write(f"{told}\n")
    if wrong:
        say(f"{plural(len(wrong), 'row')} could not be kept{'; the rest is' if kept else ''}")
    say_next(_after(is_scored=bool(scored)))
    return FAILED if wrong else OK


def _words(
    some: Iterable[Row], store: Store, ladder: Ladder, source: Source, on_bad: OnBad
) -> Iterable[tuple[Feedback, bool]]:
    """Yield what the ledger keeps of rows, and whether a check gave that answer a score."""
    for row in some:
        try:
            word = word_on(store, ladder, row.id, ok=row.ok, source=source, at=time.time(), note=row.note)
        except StoreError as unknown:
            on_bad(row.line, str(unknown))
        else:
            yield word.feedback, bool(scores_of(word))
