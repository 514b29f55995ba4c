"""Which tiers real users' prompts go to, in share of calls and of money.

The prompts come from a table that is not part of the project (`LEASTWISE_DATA`); they are
written to a temporary file, given to `leastwise route --file`, and only figures are kept.
Each set is routed with the default settings and with `preset = "reference"`: as bare
prompts, with the table's label as the task's description, and with the size of the answer
told. A label such as `coding` stands in for what a caller would tell; it is often just the
name of a subject.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import LEASTWISE, Quiet, Result, Table, environ_in, public_tables

_TABLE: Final = "text/prompt_task_types_misc.parquet"
_REAL: Final = "users' prompts, all"
#: Our name -> the table's `source`. The last one was written for a data set, by no user.
_SETS: Final[Mapping[str, tuple[str, ...]]] = {
    _REAL: ("arena_hard_v0.1", "arena_hard_v2"),
    "Arena-Hard 0.1": ("arena_hard_v0.1",),
    "Arena-Hard 2": ("arena_hard_v2",),
    "self-instruct seeds (no users)": ("self_instruct_seed",),
}
_PRESETS: Final = {"default": "schema = 1\n", "reference": 'schema = 1\npreset = "reference"\n'}
_BARE, _DESCRIBED, _SIZED = "bare", "described", "size told"
_ASSUMED: Final = (300, 1_000)

#: Set, preset, what is told, assumed tokens of an answer.
_Key = tuple[str, str, str, int]


def measure(_turns: int, quiet: Quiet) -> Result | None:
    """Return the shares, or None where the data is not there."""
    data = public_tables("prompts")
    if data is None:
        return None
    rows = _rows(Path(data, _TABLE))
    with tempfile.TemporaryDirectory() as folder:
        found = dict(_routed(rows, Path(folder)))
    whole = found[_REAL, "default", _BARE, _ASSUMED[0]]
    return Result(
        name="prompts",
        title="Where real users' prompts go",
        method=(
            (
                f"`leastwise route --file` over {whole['total']['calls']} users' prompts of "
                "Arena-Hard (Apache-2.0) and, apart, over 78 seed tasks of self-instruct; nothing was sent. "
                "The model asked for is `auto`, so the baseline is the top of the ladder, assumed."
            ),
            (
                "Share of money: what the calls of a tier would cost at the baseline, of all calls' "
                "cost there. Saved: at list prices, of the baseline's cost. Quality was not measured: this "
                "tells where prompts go, not whether the answers are as good."
            ),
            (
                "Prompt tokens are our estimate, and its error cannot be known here: no tokenizer is "
                f"published. Answers are assumed to have {_ASSUMED[0]} tokens; the last table shows "
                "what another size does."
            ),
            (
                "Described: the data's own label as `task`, a stand-in for what a caller would tell. "
                f"Size told: `expected_output_tokens` = {_ASSUMED[0]} for every prompt."
            ),
        ),
        tables=(_by_tier(found), _by_source(found), _by_reason(found), _by_size(found)),
        figures=(),
        reading=tuple(_reading(found)),
        packages=("pyarrow",),
        facts={"prices of": whole["prices_of"], **quiet.facts()},
    )


def _rows(path: Path) -> list[dict[str, str]]:
    from pyarrow import parquet  # noqa: PLC0415 - an extra that only this benchmark needs

    found: list[dict[str, str]] = parquet.read_table(path).to_pylist()
    return found


def _routed(rows: Sequence[Mapping[str, str]], folder: Path) -> Iterator[tuple[_Key, dict[str, Any]]]:
    """Yield what the command says of each set, preset and description, and of each assumed size."""
    for preset, text in _PRESETS.items():
        config = folder / f"{preset}.toml"
        config.write_text(text, encoding="utf-8")
        for name, sources in _SETS.items():
            for told in (_BARE, _DESCRIBED, _SIZED):
                chosen = [row for row in rows if row["source"] in sources]
                file = _export(chosen, folder / "prompts.jsonl", told)
                for assumed in _ASSUMED if name == _REAL else _ASSUMED[:1]:
                    yield (name, preset, told, assumed), _route(file, config, assumed, folder)


def _export(rows: Sequence[Mapping[str, str]], path: Path, told: str) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({"prompt": row["text"], **_task(row, told)}) + "\n")
    return path


def _task(row: Mapping[str, str], told: str) -> dict[str, Any]:
    if told == _DESCRIBED:
        return {"task": row["label"].replace("_", " ")}
    return {"task": {"expected_output_tokens": _ASSUMED[0]}} if told == _SIZED else {}


def _route(file: Path, config: Path, assumed: int, folder: Path) -> dict[str, Any]:
    words = ["route", "--file", str(file), "--config", str(config), "--json"]
    done = subprocess.run(  # noqa: S603 - our own command
        [*LEASTWISE, *words, "--assume-output-tokens", str(assumed)],
        cwd=folder,
        env=environ_in(folder),
        check=True,
        capture_output=True,
        text=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["bad_lines"] == 0, done.stderr
    return answer


# --- what came out -------------------------------------------------------------------------------------


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _saved(answer: Mapping[str, Any]) -> str:
    total = answer["total"]
    return _percent(1 - total["cost_usd"] / total["baseline_usd"])


def _shares(one: Mapping[str, Any]) -> tuple[str, str, str]:
    return f"{one['calls']}", _percent(one["share_of_calls"]), _percent(one["share_of_money"])


def _by_tier(found: Mapping[_Key, Mapping[str, Any]]) -> Table:
    rows = [
        (preset, told, tier, *_shares(one), f"{one['cost_usd']:.4f}", f"{one['baseline_usd']:.4f}")
        for (name, preset, told, assumed), answer in found.items()
        if (name, assumed) == (_REAL, _ASSUMED[0])
        for tier, one in [*answer["tiers"].items(), ("all", answer["total"])]
    ]
    head = ("preset", "prompts", "tier", "calls", "of calls", "of money", "cost $", "baseline $")
    return Table("By tier, all users' prompts", head, tuple(rows))


def _by_source(found: Mapping[_Key, Mapping[str, Any]]) -> Table:
    rows = []
    for (name, preset, told, assumed), answer in found.items():
        if assumed != _ASSUMED[0]:
            continue
        calls = [f"{one['calls']}" for one in answer["tiers"].values()]
        money = [_percent(one["share_of_money"]) for one in answer["tiers"].values()]
        unsure = answer["unsure"]
        rows.append(
            (
                name,
                preset,
                told,
                " / ".join(calls),
                " / ".join(money),
                _percent(unsure["share_of_calls"]),
                _percent(unsure["share_of_money"]),
                _saved(answer),
            )
        )
    head = (
        "set",
        "preset",
        "prompts",
        "calls, haiku / sonnet / opus",
        "of money",
        "unsure",
        "of money",
        "saved",
    )
    return Table("By source", head, tuple(rows))


def _by_reason(found: Mapping[_Key, Mapping[str, Any]]) -> Table:
    rows = [
        (preset, told, code, *_shares(one))
        for (name, preset, told, assumed), answer in found.items()
        if (name, assumed) == (_REAL, _ASSUMED[0])
        for code, one in sorted(answer["reasons"].items(), key=lambda item: -item[1]["calls"])
    ]
    return Table(
        "By the reason that decided, all users' prompts",
        ("preset", "prompts", "reason", "calls", "of calls", "of money"),
        tuple(rows),
    )


def _by_size(found: Mapping[_Key, Mapping[str, Any]]) -> Table:
    rows = [
        (preset, told, f"{assumed:,}", f"{answer['total']['baseline_usd']:.4f}", _saved(answer))
        for (name, preset, told, assumed), answer in found.items()
        if name == _REAL
    ]
    head = ("preset", "prompts", "tokens of an answer, assumed", "baseline $", "saved")
    return Table("What the assumed size does, all users' prompts", head, tuple(rows))


def _reading(found: Mapping[_Key, Mapping[str, Any]]) -> Iterator[str]:
    bare, described, sized = (
        found[_REAL, "default", told, _ASSUMED[0]] for told in (_BARE, _DESCRIBED, _SIZED)
    )
    reference = found[_REAL, "reference", _BARE, _ASSUMED[0]]
    yield (
        f"Bare, {_unsure(bare)} of these prompts are unsure and stay with the baseline: {_saved(bare)} is "
        f"saved. With the label as description it is {_unsure(described)}, and {_saved(described)} is saved. "
        "Strangers' one-off questions are hard to tell; what is not sure is not guessed cheap. A label such "
        "as `coding` is little to go by, and as a description it is weighed instead of the prompt."
    )
    yield (
        f"Told that answers have {_ASSUMED[0]} tokens, signals decide: {_unsure(sized)} unsure, "
        f"{_saved(sized)} saved. Size says nothing of difficulty, so this is the caller's risk."
    )
    yield (
        f"The reference preset is never unsure: {_tier_share(reference, 'sonnet')} of the calls go to "
        f"sonnet and {_tier_share(reference, 'haiku')} to haiku, {_saved(reference)} saved. Arena-Hard was "
        "chosen to tell strong models from weak ones: read that as risk taken, not as money won."
    )
    yield (
        "Share of calls is not share of money: each row gives both. "
        "Neither says how an agent's or a pipeline's own traffic would split; try it with your own file."
    )


def _unsure(answer: Mapping[str, Any]) -> str:
    return _percent(answer["unsure"]["share_of_calls"])


def _tier_share(answer: Mapping[str, Any], tier: str) -> str:
    return _percent(answer["tiers"][tier]["share_of_calls"])
