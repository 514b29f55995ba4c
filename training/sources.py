"""What the shipped classifier learns from: our own prompts, and permissive public tables.

A table gives rows of some label a type of ours. Each is capped, and counts less than our own
prompts, because an exam is not what people send. Tables under other licences (`dolly`, `trec`,
`sst2`) are never read here.

Short instructions of our own are also joined with texts of public tables, which stand in for what
people paste below them, so that the words of a pasted text mean little.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from training.learn import UNCLEAR, Sample

PROMPTS: Final = Path(__file__).resolve().parent / "prompts"

#: Rows of a clinc150 label that are, as they stand, asks of one of our types.
_CLINC: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        (
            *("greeting", "goodbye", "thank_you", "how_old_are_you", "what_is_your_name", "who_made_you"),
            *("are_you_a_bot", "where_are_you_from", "what_are_your_hobbies", "do_you_have_pets"),
            *("meaning_of_life", "who_do_you_work_for"),
        ),
        "chat",
    ),
    **dict.fromkeys(("definition", "recipe", "ingredient_substitution", "food_last", "vaccines"), "question"),
    "translate": "translate",
    "calculator": "math",
    "measurement_conversion": "convert",
}
_BENCHMARKS: Final[Mapping[str, str]] = {
    "math": "math",
    "logic": "math",
    "code": "code",
    "open_qa": "question",
    "multiple_choice": "question",
}
_EXACT: Final = ("math", "physics", "chemistry")


@dataclass(frozen=True, slots=True)
class Table:
    """A public table: where it is, under which licence, and which type its rows are of.

    Args:
        path: Below the data folder.
        licence: Its SPDX name.
        origin: The repository it is from.
        label: Returns the type of a row, or None to pass it over.
        most: Rows taken per type.
        weight: How much a row counts; one of our own prompts counts 1.
        column: With the text.
    """

    path: str
    licence: str
    origin: str
    label: Callable[[Mapping[str, Any]], str | None]
    most: int
    weight: float
    column: str = "text"

    @property
    def name(self) -> str:
        """The name of the file."""
        return Path(self.path).stem


TABLES: Final = (
    Table(
        "text/prompt_task_types_benchmarks.parquet",
        "MIT",
        "ulab-uiuc/LLMRouter",
        lambda row: _BENCHMARKS.get(row["label"]),
        150,
        0.3,
    ),
    Table(
        "routing/mmlu_pro.parquet",
        "Apache-2.0",
        "TIGER-AI-Lab/MMLU-Pro",
        lambda row: "math" if row["subset"] in _EXACT else "question",
        120,
        0.3,
        "prompt",
    ),
    Table(
        "routing/zeroeval_crux.parquet",
        "Apache-2.0",
        "WildEval/ZeroEval",
        lambda _: "code",
        25,
        0.3,
        "prompt",
    ),
    Table(
        "routing/coderouterbench_id.parquet",
        "MIT",
        "davidpizon/agent-as-a-router",
        lambda row: "code" if row["prompt"] else None,
        100,
        0.3,
        "prompt",
    ),
    Table(
        "text/clinc150.parquet", "CC-BY-3.0", "clinc/oos-eval", lambda row: _CLINC.get(row["label"]), 40, 0.3
    ),
)


def _without_type(row: Mapping[str, Any]) -> str | None:
    return None if row["label"] in _CLINC else ""


#: Texts that are pasted below instructions.
PASTED: Final = (
    Table("text/banking77.parquet", "CC-BY-4.0", "PolyAI-LDN/task-specific-datasets", lambda _: "", 600, 0),
    Table("text/clinc150.parquet", "CC-BY-3.0", "clinc/oos-eval", _without_type, 600, 0),
    Table("text/sms_spam.parquet", "CC-BY-4.0", "UCI SMS Spam Collection", lambda _: "", 600, 0),
)
#: Sources of samples that are made with them.
ALONE, JOINED = "pasted texts alone", "own, with a pasted text"
_TAKES_TEXT: Final = ("classify", "extract", "convert", "lookup", "summarise", "translate", "rewrite")
_ASKED_OF_NOBODY: Final = 120  # texts that stand alone, as examples of what has no type
_ALONE_WEIGHT: Final = 0.3
_SHORT: Final = 110
_MOST_SENTENCES: Final = 9
_PASTED_WEIGHT: Final = 0.5


def own() -> list[Sample]:
    """Return our own prompts, those of no type among them."""
    return list(_own())


def _own() -> Iterator[Sample]:
    for path in sorted(PROMPTS.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield Sample(row["text"], row["type"], "own")


def public(data: Path) -> list[Sample]:
    """Return the rows of the public tables that are of a type of ours.

    Args:
        data: The folder with `text/` and `routing/`.
    """
    return [sample for table in TABLES for sample in _rows(table, data)]


def _rows(table: Table, data: Path) -> Iterator[Sample]:
    taken: dict[str, int] = {}
    rows = read_table(data / table.path)
    for row in sorted(rows, key=lambda row: _digest(row[table.column])):
        label = table.label(row)
        if label is not None and taken.get(label, 0) < table.most:
            taken[label] = taken.get(label, 0) + 1
            yield Sample(row[table.column], label, table.name, table.weight)


def read_table(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a parquet file."""
    from pyarrow import parquet  # noqa: PLC0415 - an extra that only training needs

    found: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return found


def pasted(samples: Sequence[Sample], data: Path) -> list[Sample]:
    """Return short instructions among `samples` with a text pasted, and such texts with nothing asked."""
    texts = sorted({sample.text for table in PASTED for sample in _rows(table, data)}, key=_digest)
    alone = [" ".join(texts[place : place + 1 + place % 4]) for place in range(_ASKED_OF_NOBODY)]
    found = [Sample(text, UNCLEAR, ALONE, _ALONE_WEIGHT) for text in alone]
    for sample in samples:
        if sample.label not in _TAKES_TEXT or len(sample.text) > _SHORT or "\n" in sample.text:
            continue
        number = int(_digest(sample.text)[:8], 16)
        count = 1 + number % _MOST_SENTENCES
        start = number % (len(texts) - count)
        text = (" ", "\n")[number % 2].join(texts[start : start + count])
        parts = (text, sample.text) if number % 4 == 0 else (sample.text, text)
        found.append(Sample("\n\n".join(parts), sample.label, JOINED, _PASTED_WEIGHT))
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
