"""`leastwise route`: where a prompt, or a file of prompts, goes, why, and at what price."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from leastwise.cascade import NO_EVIDENCE, Evidence
from leastwise.cli.console import (
    BAD_INPUT,
    FAILED,
    OK,
    AsJson,
    ConfigFile,
    print_json,
    say,
    say_error,
    say_next,
)
from leastwise.config import Config, load
from leastwise.errors import ConfigError, LeastwiseError, LogError, RequestError
from leastwise.ladder import AUTO, Complexity, Task
from leastwise.report.files import unreadable
from leastwise.report.prompts import MAX_TOKENS, Prompt, read_prompts, request_of
from leastwise.report.routes import (
    ASSUMED_OUTPUT_TOKENS,
    Planner,
    Totals,
    explain_lines,
    route_json,
    route_lines,
    totals_json,
    totals_lines,
)
from leastwise.report.table import plural

if TYPE_CHECKING:
    from leastwise.build import Runtime
    from leastwise.ladder import Outcome
    from leastwise.messages import Request

STDIN = "-"
_RETRIES = 2


def _no_option(_type: object, value: object) -> None:
    """Refuse a mistyped option, which would pass for a prompt since `-` may."""
    if isinstance(value, str) and value.startswith("--"):
        message = f"unknown option {value.split()[0]}; what begins so is read from stdin: -"
        raise ValueError(message)


def route(
    prompt: Annotated[
        str | None,
        Parameter(
            help="What to ask; - reads it from stdin.", allow_leading_hyphen=True, validator=_no_option
        ),
    ] = None,
    /,
    *,
    task: Annotated[
        str | None, Parameter(help="What is to be done, in words; decides before the prompt.")
    ] = None,
    complexity: Annotated[Complexity | None, Parameter(help="What the task needs; forces its tier.")] = None,
    tier: Annotated[str | None, Parameter(help="Forces a tier by name.")] = None,
    tag: Annotated[str | None, Parameter(help="Your name for this kind of traffic.")] = None,
    expected_output_tokens: Annotated[int | None, Parameter(help="Size of the answer, in tokens.")] = None,
    expected_output_words: Annotated[int | None, Parameter(help="The same in words.")] = None,
    has_code: Annotated[
        bool | None, Parameter(help="Whether it is about code; looked for by default.")
    ] = None,
    model: Annotated[
        str | None, Parameter(help="A model id, a tier, or auto. [default: auto, or what the file says]")
    ] = None,
    max_tokens: Annotated[int, Parameter(help="Cap on the answer, thinking included.")] = MAX_TOKENS,
    assume_output_tokens: Annotated[
        int, Parameter(help="Size of an answer whose size is not told, for its price.")
    ] = ASSUMED_OUTPUT_TOKENS,
    file: Annotated[
        str | None,
        Parameter(
            help="Prompts: .jsonl, .csv, or .txt with one a line; - reads them from stdin.",
            allow_leading_hyphen=True,
            validator=_no_option,
        ),
    ] = None,
    text_column: Annotated[
        str | None, Parameter(help="CSV column with the prompt. [default: text, or prompt]")
    ] = None,
    out: Annotated[
        Path | None, Parameter(help="With --file: write each decision there, as JSON lines.")
    ] = None,
    explain: Annotated[
        bool,
        Parameter(negative=(), show_default=False, help="Show all that was read and what each phase did."),
    ] = False,
    send: Annotated[
        bool, Parameter(negative=(), show_default=False, help="Ask for real; it costs money.")
    ] = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> int:
    """Show which tier a prompt, or a file of prompts, goes to and why. Nothing is sent without --send."""
    told = _task(
        task,
        complexity=complexity,
        tier=tier,
        tag=tag,
        expected_output_tokens=expected_output_tokens,
        expected_output_words=expected_output_words,
        has_code=has_code,
    )
    for name, size in (("--max-tokens", max_tokens), ("--assume-output-tokens", assume_output_tokens)):
        if size < 1:
            message = f"{name} {size}: expected a whole number from 1"
            raise ConfigError(message)
    if file is not None:
        if prompt is not None or send or explain:
            message = "--file stands without a prompt, --send and --explain: they are for one prompt"
            raise ConfigError(message)
        return _route_file(
            file,
            told,
            model=model,
            text_column=text_column,
            assumed=assume_output_tokens,
            out=out,
            as_json=as_json,
            config=config,
        )
    for option, value in (("--out", out), ("--text-column", text_column)):
        if value is not None:
            message = f"{option} needs --file"
            raise ConfigError(message)
    request = request_of(_prompt(prompt), model=model or AUTO[0], max_tokens=max_tokens)
    if send:
        return _send(request, told, as_json=as_json, config=config)
    settings = load(config)
    planner = Planner(settings, datetime.now(UTC), assume_output_tokens=assume_output_tokens)
    found = planner.route(request, told, weighs=explain, evidence=_evidence(settings, planner, told))
    if as_json:
        print_json(route_json(found, explains=explain))
    else:
        _print([*route_lines(found), *(explain_lines(found) if explain else ())])
    say_next("leastwise route --send PROMPT" if explain else "leastwise route --explain PROMPT")
    return OK


def _evidence(settings: Config, planner: Planner, task: Task) -> Evidence:
    """Return how the checks of such a request went so far; where nothing is checked nothing is read."""
    from leastwise.build import existing_store

    plan = planner.plans(task)
    if not plan.checks:
        return NO_EVIDENCE
    with existing_store(settings) as store:
        return store.evidence(plan.digest) if store is not None else NO_EVIDENCE


def _task(description: str | None, **told: Any) -> Task:
    try:
        return Task(description, **told)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _prompt(prompt: str | None) -> str:
    """Return what to ask, from the command line or from stdin.

    Raises:
        RequestError: there is none.
    """
    if prompt == STDIN:
        prompt = sys.stdin.buffer.read().decode("utf-8", "replace")
    if prompt is None or not prompt.strip():
        message = 'no prompt: leastwise route "Is this spam? ...", or --file FILE, or - to read stdin'
        raise RequestError(message)
    return prompt.strip()


def _print(lines: Iterable[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)


# --- a file ------------------------------------------------------------------------------------------


def _route_file(
    file: str,
    task: Task,
    *,
    model: str | None,
    text_column: str | None,
    assumed: int,
    out: Path | None,
    as_json: bool,
    config: Path | None,
) -> int:
    settings = load(config)
    planner = Planner(settings, datetime.now(UTC), is_on=True, assume_output_tokens=assumed)
    if task.tier is not None:
        settings.ladder[task.tier]
    totals, name = Totals(), "stdin" if file == STDIN else Path(file).name

    def on_bad(line: int, fault: str) -> None:
        totals.bad_lines += 1
        say(f"{name}:{line}: {fault}")

    with ExitStack() as stack:
        source = sys.stdin.buffer if file == STDIN else _open(stack, Path(file))
        keep = _keeper(stack, out, Path(file))
        prompts = read_prompts(source, name, on_bad, task=task, model=model, text_column=text_column)  # type: ignore[arg-type]  # stdin's buffer peeks too
        for each in prompts:
            _add(totals, planner, each, keep, on_bad)
    if not totals.all.calls:
        say_error(f"{name}: not one of {plural(totals.bad_lines, 'line')} could be read")
        return BAD_INPUT
    if as_json:
        print_json(totals_json(totals, planner, name, assumed))
    else:
        _print(totals_lines(totals, planner, name, assumed))
    if totals.bad_lines:
        say(f"{plural(totals.bad_lines, 'line')} could not be read; the rest is done")
    say_next("leastwise on --percent 10")
    return OK


def _open(stack: ExitStack, path: Path) -> IO[bytes]:
    try:
        return stack.enter_context(path.open("rb"))
    except OSError as error:
        raise unreadable(path, error) from None


_Keep = Callable[[int, dict[str, Any]], None]


def _keeper(stack: ExitStack, out: Path | None, source: Path) -> _Keep:
    """Return what writes one decision a line to `out`.

    Raises:
        LogError: it is the file that is read, or cannot be written.
    """
    if out is None:
        return lambda _line, _decision: None
    if out.exists() and source.exists() and out.samefile(source):
        message = f"--out {out}: that is the file to read; name another"
        raise LogError(message)
    try:
        file = stack.enter_context(out.open("wb"))
    except OSError as error:
        message = f"--out {out}: {error.strerror}; check the path and who may write it"
        raise LogError(message) from None
    encode = msgspec.json.Encoder(decimal_format="number").encode

    def keep(line: int, decision: dict[str, Any]) -> None:
        file.write(encode({"line": line, **decision}) + b"\n")

    return keep


def _add(
    totals: Totals, planner: Planner, prompt: Prompt, keep: _Keep, on_bad: Callable[[int, str], None]
) -> None:
    try:
        found = planner.route(prompt.request, prompt.task)
    except LeastwiseError as error:  # a tier that does not exist, a model without a price
        on_bad(prompt.line, str(error))
        return
    totals.add(found)
    keep(prompt.line, route_json(found))


# --- for real ----------------------------------------------------------------------------------------


def _send(request: Request, task: Task, *, as_json: bool, config: Path | None) -> int:
    import aiohttp

    from leastwise.build import Runtime
    from leastwise.upstream import AnswerError

    with Runtime.open(path=config) as runtime:
        try:
            answer, outcome = asyncio.run(_ask(runtime, request, task))
        except AnswerError as error:
            say_error(f"the upstream refused: {error}")
            return FAILED
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            urls = ", ".join(upstream.base_url for upstream in runtime.config.upstreams.values())
            what = str(error) or type(error).__name__
            say_error(f"no answer from {urls}: {what}; check its address: leastwise doctor")
            return FAILED
    text = "".join(block.get("text", "") for block in answer.get("content") or ())
    if as_json:
        print_json({"answer": answer, "outcome": asdict(outcome)})
    else:
        _print([text] if text else [])
    if not text:
        say(f"the answer has no text; it stopped for {answer.get('stop_reason')}")
    say(str(outcome))
    say_next(f"leastwise why {outcome.exchange}")
    return OK


async def _ask(runtime: Runtime, request: Request, task: Task) -> tuple[dict[str, Any], Outcome]:
    from leastwise.cli.connections import Connections
    from leastwise.client import run_async
    from leastwise.exchange import exchange

    async with Connections(runtime.config.upstreams) as upstream:
        call = runtime.call(request, task, max_retries=_RETRIES)
        result = await run_async(exchange(call, runtime.terms), upstream, runtime.desk)
    assert result.life.outcome is not None
    return result.payload, result.life.outcome
