"""Checks by name: those that are built in, and those of the configuration's `[[check]]` tables."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from leastwise.cascade.checks import (
    empty,
    labels,
    language,
    length,
    refusal,
    regex,
    stop_reason,
    truncation,
)
from leastwise.cascade.plan import JUDGE, Check
from leastwise.cascade.shapes import json, schema, schema_of, tools
from leastwise.errors import ConfigError

RowKind = Literal["labels", "pattern", "length", "language", "schema", "command", "function"]

#: The checks that need nothing to be told, by name, cheapest first.
BUILT_IN: Final[Mapping[str, Check]] = MappingProxyType(
    {check.name: check for check in (truncation, empty, refusal, stop_reason(), json, schema, tools)}
)

_NAME: Final = re.compile(r"[\w.-]+")
_FUNCTION: Final = re.compile(r"[\w.]+:[\w.]+")


#: What may stand beside what a check looks for.
_BESIDE: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "pattern": frozenset({"full"}),
        "command": frozenset({"timeout_s", "memory_mb", "folder"}),
        "function": frozenset({"timeout_s", "threshold"}),
    }
)


@dataclass(frozen=True, slots=True)
class CheckRow:
    """A `[[check]]` of the configuration: its name, and exactly one thing that it looks for.

    Attributes:
        name: As `Task(check=)`, plans and verdicts call it.
        labels: What an answer may be.
        pattern: A regular expression that is found in it.
        full: Whether the pattern must match all of it.
        min_chars: How long it is at least, in characters.
        max_chars: How long it is at most.
        min_words: The same in words.
        max_words: The same in words.
        language: What it is in, such as `de`.
        schema: JSON Schema that it keeps to.
        command: A command whose exit code decides (see `leastwise.command`). Only from trusted files.
        function: A function of (request, reply), as `module:name`. Only from trusted files.
        threshold: The least score of a function that is accepted.
        timeout_s: How long a command or function may take.
        memory_mb: How much memory each process of a command may have; 0 for as much as it likes.
        folder: Where a command runs, the whole path; "" for an empty folder of its own.
    """

    name: str
    labels: tuple[str, ...] = ()
    pattern: str = ""
    full: bool = False
    min_chars: int | None = None
    max_chars: int | None = None
    min_words: int | None = None
    max_words: int | None = None
    language: str = ""
    schema: Mapping[str, Any] | None = None
    command: str = ""
    function: str = ""
    threshold: float | None = None
    timeout_s: float = 60.0
    memory_mb: int = 4096
    folder: str = ""

    def __post_init__(self) -> None:
        """Refuse a row that cannot be meant.

        Raises:
            ConfigError: names the row, the value and the mend.
        """
        if not _NAME.fullmatch(self.name):
            message = f"check {self.name!r}: give it a name of letters, digits, `_`, `-` and `.`"
            raise ConfigError(message)
        if self.name in (*BUILT_IN, JUDGE):
            message = f"check {self.name!r}: that name is built in; choose another"
            raise ConfigError(message)
        if self.timeout_s <= 0 or self.memory_mb < 0:
            message = (
                f"check {self.name!r}: timeout_s = {self.timeout_s!r}, memory_mb = {self.memory_mb!r}: "
                f"expected more than 0 seconds, and 0 megabytes (no limit) or more"
            )
            raise ConfigError(message)
        kind = self.kind
        self._check_beside(kind)
        if kind == "command":
            self._check_command()
        elif kind == "function":
            self._check_function()
        else:
            made_of(self)

    @property
    def kind(self) -> RowKind:
        """What it looks for.

        Raises:
            ConfigError: it is told nothing to look for, or several things.
        """
        bounds = (self.min_chars, self.max_chars, self.min_words, self.max_words)
        told: dict[RowKind, bool] = {
            "labels": bool(self.labels),
            "pattern": bool(self.pattern),
            "length": bounds != (None,) * len(bounds),
            "language": bool(self.language),
            "schema": self.schema is not None,
            "command": bool(self.command),
            "function": bool(self.function),
        }
        kinds = [kind for kind, is_told in told.items() if is_told]
        if len(kinds) != 1:
            has = ", ".join(kinds) or "none"
            message = f"check {self.name!r}: give exactly one of {', '.join(told)}; it has {has}"
            raise ConfigError(message)
        return kinds[0]

    @property
    def arguments(self) -> list[str]:
        """The words of its command, as a shell would split them; no shell reads them.

        Raises:
            ValueError: a quote is not closed.
        """
        return shlex.split(self.command)

    def _check_beside(self, kind: RowKind) -> None:
        """Refuse what has no meaning for such a check, and would be passed over in silence."""
        told = {name for name, default in _BESIDE_DEFAULTS.items() if getattr(self, name) != default}
        for name in sorted(told - _BESIDE.get(kind, frozenset())):
            kinds = " or ".join(of for of, names in _BESIDE.items() if name in names)
            message = f"check {self.name!r}: {name} goes with {kinds}, and this has {kind}; leave it out"
            raise ConfigError(message)
        if self.folder and not Path(self.folder).is_absolute():
            message = (
                f"check {self.name!r}: folder = {self.folder!r}: a relative path would be another "
                "one wherever your program is started; write the whole path"
            )
            raise ConfigError(message)

    def _check_command(self) -> None:
        try:
            is_command = not self.arguments[0].startswith("-")
        except (ValueError, IndexError):
            is_command = False
        if not is_command:
            message = f"check {self.name!r}: command = {self.command!r}: expected a program and its arguments"
            raise ConfigError(message)

    def _check_function(self) -> None:
        if not _FUNCTION.fullmatch(self.function):
            message = f'check {self.name!r}: function = {self.function!r}: expected "module:name"'
            raise ConfigError(message)


_BESIDE_DEFAULTS: Final = {
    one.name: one.default for one in fields(CheckRow) if one.name in frozenset().union(*_BESIDE.values())
}


def made_of(row: CheckRow) -> Check:
    """Return the check of a row that needs nothing but the answer: no command, and no function.

    Raises:
        ConfigError: what it looks for cannot be looked for.
    """
    if row.kind == "labels":
        return labels(*row.labels, name=row.name)
    if row.kind == "pattern":
        return regex(row.pattern, full=row.full, name=row.name)
    if row.kind == "language":
        return language(row.language, name=row.name)
    if row.schema is not None:
        return schema_of(row.schema, name=row.name)
    assert row.kind == "length", "commands and functions are made where they may be run"
    return length(
        min_chars=row.min_chars,
        max_chars=row.max_chars,
        min_words=row.min_words,
        max_words=row.max_words,
        name=row.name,
    )
