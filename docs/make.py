"""Writes docs/cli.md and docs/configuration.md from the program itself, and the figures of docs/cascade.md.

python docs/make.py
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from math import atan2, degrees
from pathlib import Path

from leastwise.cli import main
from leastwise.cli.init import template
from leastwise.ladder import DEFAULT_LADDER
from leastwise.messages import Usage
from leastwise.prices import cost, load_prices
from leastwise.routing import climbing

HERE = Path(__file__).resolve().parent
COMMANDS = (
    "",
    *("demo", "init", "doctor", "route", "report", "why", "on", "off", "feedback"),
    *("budget", "budget status", "budget set", "budget raise", "budget log", "budget reconcile"),
    *("cache", "cache stats", "cache list", "cache show", "cache clear", "cache prune"),
    *("config", "config show", "config check", "config path"),
    *("trial", "tune", "tune table", "tune calibrate", "tune replay", "simulate"),
)

CLI = """\
# Command line

The answer goes to standard output, talk to standard error; `--json` wherever a table is printed, with
`"schema": 1`. Exit codes: 0 done; 1 the answer is no, or something failed; 2 an option, a file or the
configuration is wrong; 130 interrupted. This page is written by `docs/make.py`; a test compares it.
"""

CONFIGURATION = """\
# Configuration

Without a file everything works. `leastwise init` writes this one to your config directory
(`$XDG_CONFIG_HOME/leastwise/leastwise.toml`, else `~/.config/leastwise/leastwise.toml`); `leastwise config
show` prints every value with where it comes from, `leastwise config check` tells what is wrong.

What is said later wins: defaults, your file, a `leastwise.toml` in the working directory (policy only: it
cannot name upstreams, stores or prices), environment variables, arguments. `LEASTWISE_CONFIG` names another
file. Variables are `LEASTWISE_` and the key in capitals: `LEASTWISE_MODE`, `LEASTWISE_STORE_URL`. Unknown
keys are errors. This page is written by `docs/make.py`; a test compares it.

```toml
{template}```

## PostgreSQL

`pip install "leastwise[postgres]"`, and `ledger` and `budget` (or `url`) name a database: for several
hosts that share one ledger, or a ledger that others query too. All tables are in the schema `leastwise`,
which is made at the first start; until it exists, the role needs `CREATE` on the database. Limits are
exact across hosts: a lease locks its accounts first, in one order for everybody, and reads what they hold
only then, so that leases neither overspend nor lock each other out. That order has a price: what is
leased from one budget is leased one transaction after the other, some 1,000 a second, or more where
threads of one process share transactions; for more, keep budgets on Redis or Valkey. Who has died is told
by the server's clock. A server that cannot be reached at the start is an error. One that is lost later is
found out within about a second (two, where a network swallows everything): budgets then block what they
cover, rows wait in memory, 10,000 at most, and both end when it is back. Not promised: limits across a
fail-over to a replica that lacks the last transactions (`synchronous_commit` and the replication are
yours), poolers that share connections between transactions (PgBouncer's `transaction` mode; `session`
mode works), text with NUL characters.
"""


#: The day whose prices docs/cascade.md works with, and the sizes: tokens of the prompt, of the answer.
PRICES_OF = datetime(2026, 11, 23, tzinfo=UTC)
SIZES = ((200, 300), (2_000, 500))
#: First tier, the one that answers what is rejected, who judges ("" for free checks and one's own tests).
PAIRS = [
    (first, then, judge)
    for first, then in (("haiku", "sonnet"), ("haiku", "opus"), ("sonnet", "opus"))
    for judge in ("", "haiku", "sonnet")
]
OPENS, CLOSES = "<!-- break-even, by docs/make.py -->\n", "<!-- end of break-even -->\n"

#: The lines of docs/break-even.svg, of PAIRS, with a colour each; and how it looks.
DRAWN = ((("haiku", "opus", ""), "a"), (("haiku", "opus", "sonnet"), "b"), (("sonnet", "opus", "haiku"), "c"))
LEFT, TOP, WIDE, HIGH = 56, 16, 520, 300
STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #3b4046 } .axis { stroke: #80868e; stroke-width: 1 }
.line { fill: none; stroke-width: 2 } .direct { stroke: #80868e; stroke-dasharray: 6 4 }
.a { stroke: #1a7f5a } .b { stroke: #3667c8 } .c { stroke: #c05621 }
.dot { stroke: none } .dot.a { fill: #1a7f5a } .dot.b { fill: #3667c8 } .dot.c { fill: #c05621 }
@media (prefers-color-scheme: dark) {
text { fill: #d5dae0 } .a { stroke: #4fc393 } .b { stroke: #7ea6f4 } .c { stroke: #f0986a }
.dot.a { fill: #4fc393 } .dot.b { fill: #7ea6f4 } .dot.c { fill: #f0986a }
}"""


def cli_page() -> str:
    """Return docs/cli.md."""
    parts = [CLI]
    for command in COMMANDS:
        written = io.StringIO()
        with redirect_stdout(written):
            main([*command.split(), "--help"])
        text = "\n".join(line.rstrip() for line in written.getvalue().strip().splitlines())
        parts.append(f"## leastwise {command}".rstrip() + f"\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def configuration_page() -> str:
    """Return docs/configuration.md."""
    return CONFIGURATION.format(template=template())


# --- when a cascade pays -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Even:
    """What a thousand calls cost, in dollars: the first answers, checking them, the dear answers alone."""

    first: float
    check: float
    dear: float

    @property
    def accepted(self) -> float:
        """The share of first answers that must be accepted for it to pay, from 0."""
        return (self.first + self.check) / self.dear


def even(first: str, then: str, judge: str, prompt: int, answer: int) -> Even:
    """Return it for two tiers, a judge or "", and tokens of prompt and answer, on all tiers the same."""
    book = load_prices()

    def usd(tier: str, read: int, written: int) -> float:
        model = DEFAULT_LADDER[tier].model
        return cost(Usage(input_tokens=read, output_tokens=written), model, PRICES_OF, book).nusd / 1e6

    read, written = climbing._JUDGE_INPUT_TOKENS, climbing._JUDGE_OUTPUT_TOKENS  # noqa: SLF001 - as routing reckons
    check = usd(judge, prompt + answer + read, written) if judge else 0.0
    return Even(usd(first, prompt, answer), check, usd(then, prompt, answer))


def cascade_page() -> str:
    """Return docs/cascade.md with its figures as they are now."""
    before, _, rest = (HERE / "cascade.md").read_text("utf-8").partition(OPENS)
    _, _, after = rest.partition(CLOSES)
    return f"{before}{OPENS}\n{break_even_table()}\n{CLOSES}{after}"


def break_even_table() -> str:
    """Return a Markdown table of what calls cost, and of the share that must be accepted."""
    heads = [f"{read:,} + {written:,} tokens: first + check | dear | pays above" for read, written in SIZES]
    lines = [f"| first, then | checked by | {' | '.join(heads)} |", "|---|---|" + "--:|--:|--:|" * len(SIZES)]
    for first, then, judge in PAIRS:
        cells = [f"{first}, {then}", (judge + ("*" if judge == first else "")) or "free checks, own tests"]
        for size in SIZES:
            one = even(first, then, judge, *size)
            cells += [f"${one.first:.2f} + ${one.check:.2f}", f"${one.dear:.2f}", f"{one.accepted:.0%}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def break_even_svg() -> str:
    """Return the plot of expected cost against the share of answers that is rejected."""
    evens = [(even(*pair, *SIZES[0]), pair, colour) for pair, colour in DRAWN]
    top = max(one.first + one.check + one.dear for one, *_ in evens)
    parts = "\n".join([*_axes(top, evens[0][0].dear), *_lines(evens, top)])
    size = f'viewBox="0 0 {LEFT + WIDE + 24} {TOP + HIGH + 48}" role="img"'
    words = "Expected cost of 1,000 calls against the share of first answers that is rejected"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} aria-label="{words}">\n'
        f"<style>\n{STYLE}\n</style>\n{parts}\n</svg>\n"
    )


def _at(share: float, usd: float, top: float) -> tuple[float, float]:
    return round(LEFT + share * WIDE, 1), round(TOP + HIGH * (1 - usd / top), 1)


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{words}</text>'


def _axes(top: float, dear: float) -> Iterator[str]:
    """Yield both axes with their marks, and the line of what the dear tier alone costs."""
    bottom, right = TOP + HIGH, LEFT + WIDE
    yield f'<path class="axis" fill="none" d="M{LEFT} {TOP}V{bottom}H{right}"/>'
    for share in (0, 0.25, 0.5, 0.75, 1):
        yield _text(LEFT + share * WIDE, bottom + 18, f"{share:.0%}", "middle")
    for usd in range(0, int(top) + 1, 2):
        yield _text(LEFT - 8, _at(0, usd, top)[1] + 4, f"${usd}", "end")
    yield _text(LEFT + WIDE / 2, bottom + 38, "share of first answers rejected", "middle")
    yield _text(LEFT + 8, TOP + 8, "$ for 1,000 calls of 200 + 300 tokens")
    _, y = _at(0, dear, top)
    yield f'<path class="line direct" d="M{LEFT} {y}H{right}"/>'
    yield _text(LEFT + 6, y - 7, f"opus for all, ${dear:.2f}")


def _lines(evens: list[tuple[Even, tuple[str, str, str], str]], top: float) -> Iterator[str]:
    """Yield a line for each cascade, and a dot from where on it loses."""
    for one, (first, _, judge), colour in evens:
        x, y = _at(0, one.first + one.check, top)
        right, end = _at(1, one.first + one.check + one.dear, top)
        yield f'<path class="line {colour}" d="M{x} {y}L{right} {end}"/>'
        turn = f"rotate({degrees(atan2(end - y, right - x)):.1f} {x} {y})"
        words = f"{first} first, {f'judged by {judge}' if judge else 'free checks'}"
        yield f'<g transform="{turn}">{_text(x + 24, y - 7, words)}</g>'
        x, y = _at(1 - one.accepted, one.dear, top)
        yield f'<circle class="dot {colour}" cx="{x}" cy="{y}" r="4"/>'
        yield _text(x + 10, y + 20, f"{1 - one.accepted:.0%}", "middle")


if __name__ == "__main__":
    (HERE / "cli.md").write_text(cli_page(), "utf-8")
    (HERE / "configuration.md").write_text(configuration_page(), "utf-8")
    (HERE / "cascade.md").write_text(cascade_page(), "utf-8")
    (HERE / "break-even.svg").write_text(break_even_svg(), "utf-8")
