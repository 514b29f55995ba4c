"""`leastwise demo`: sample requests through the real client, and the bill."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from leastwise.build import OWN_UPSTREAM, Runtime
from leastwise.cli.console import FAILED, INTERRUPTED, OK, AsJson, ConfigFile, print_json, say_error, talk
from leastwise.config import MEMORY, Config, load
from leastwise.errors import ConfigError, LeastwiseError
from leastwise.features import read
from leastwise.ladder import AUTO
from leastwise.messages import Request
from leastwise.money import show, to_nusd
from leastwise.prices import worst_case
from leastwise.report.demo import NEXT, Bill, Sample, bill_json, bill_lines, head_line, load_samples
from leastwise.report.routes import list_day
from leastwise.report.table import wrapped
from leastwise.steps import Load
from leastwise.stores import Query
from leastwise.tally import prompt_bound

if TYPE_CHECKING:
    from leastwise.ladder import Outcome
    from leastwise.sdk import Anthropic

_DEFAULT_USD: Final = "0.05"
_NO_PROXY: Final = {"http://": None}  # this machine's own port is not to be reached through one


def demo(
    *,
    each: Annotated[
        bool,
        Parameter(
            name="--all", negative=(), show_default=False, help="One row per request, not per kind of task."
        ),
    ] = False,
    live: Annotated[
        bool, Parameter(negative=(), show_default=False, help="Ask for real; it costs money.")
    ] = False,
    max_usd: Annotated[
        str | None, Parameter(help="With --live: never spend more than this, in dollars. [default: 0.05]")
    ] = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> int:
    """Route sample requests on a simulated upstream and show the bill.

    The requests go through the real client, in a ledger that ends with the command.
    """
    if not live and (max_usd is not None or config is not None):
        message = "--max-usd and --config need --live: the simulated demo costs nothing and reads no file"
        raise ConfigError(message)
    try:
        import anthropic  # noqa: F401 - the extra that the real client needs
    except ModuleNotFoundError:
        say_error('the demo needs the anthropic SDK: pip install "leastwise[anthropic]"')
        return FAILED
    run = _live(_cap(max_usd), config) if live else _simulated()
    if as_json:
        print_json({**bill_json(run.bill, run.list_day, is_simulated=not live), "stopped": run.stopped})
    elif run.bill.results:
        head = head_line("LIVE" if live else "SIMULATED", run.list_day)
        lines = [*bill_lines(run.bill, head, each=each), *wrapped(run.stopped), run.last]
        sys.stdout.writelines(f"{line}\n" for line in lines)
    if run.code != OK:
        say_error(run.stopped)
    return run.code


def _cap(max_usd: str | None) -> int:
    try:
        cap = to_nusd(_DEFAULT_USD if max_usd is None else max_usd)
    except ValueError as error:
        message = f"--max-usd: {error}"
        raise ConfigError(message) from None
    if cap <= 0:
        message = f"--max-usd {max_usd}: expected more than nothing"
        raise ConfigError(message)
    return cap


@dataclass(frozen=True, slots=True)
class _Run:
    """A demo that is over: the bill, its last line, what stopped it before its end, the exit code."""

    bill: Bill
    list_day: date
    last: str
    stopped: str = ""
    code: int = OK


def _simulated() -> _Run:
    """Send every sample to a simulated upstream, as nobody's configuration but the default would."""
    from anthropic import DefaultHttpxClient

    from leastwise.sdk import Anthropic
    from leastwise.simulate import MARK, serve

    with TemporaryDirectory() as folder:  # holds no configuration
        config = load(None, {}, cwd=Path(folder), arguments={"store.url": MEMORY})
    results = []
    with Runtime(config) as runtime, serve() as server, DefaultHttpxClient(mounts=_NO_PROXY) as http:
        client = Anthropic(
            api_key="simulated", base_url=server.url, leastwise=runtime, max_retries=0, http_client=http
        )
        for sample in load_samples():
            server.simulator.script(f"{MARK} {sample.answer}")
            results.append((sample, _ask(client, sample)))
        day = list_day(config.ladder, runtime.terms.book, datetime.now(UTC))
    return _Run(Bill(tuple(results)), day, f"quality   not measured: scripted answers.   next   {NEXT}")


def _ask(client: Anthropic, sample: Sample) -> Outcome:
    from leastwise.sdk import outcome

    message = client.messages.create(model=AUTO[0], task=sample.task, **sample.members)
    found = outcome(message)
    assert found is not None
    return found


# --- for real ----------------------------------------------------------------------------------------


def _live(cap_nusd: int, path: Path | None) -> _Run:
    """Send samples to the configured upstream, as long as the worst case of the next fits into the cap.

    Raises:
        LeastwiseError: there is no key.
    """
    import anthropic
    from rich.progress import track

    from leastwise.sdk import Anthropic

    config = load(path, arguments={"store.url": MEMORY})
    url, key = _upstream(config)
    samples, stopped, code = load_samples(), "", OK
    results: list[tuple[Sample, Outcome]] = []
    # No retries: each would cost again what the cap has room for once.
    with (
        Runtime(config) as runtime,
        Anthropic(api_key=key, base_url=url, leastwise=runtime, max_retries=0) as client,
    ):
        for sample in track(
            samples, "asking", console=talk(), transient=True, disable=not sys.stderr.isatty()
        ):
            left, worst = cap_nusd - _spent(runtime), _worst_nusd(runtime, sample)
            if worst > left:
                stopped = (
                    f"the next could cost {show(worst, 6)}, left is {show(left, 6)}: --max-usd gives more"
                )
                code = OK if results else FAILED
                break
            try:
                results.append((sample, _ask(client, sample)))
            except anthropic.APIError as error:
                stopped, code = f"{url}: {_said(error)}", FAILED
                break
            except KeyboardInterrupt:
                stopped, code = "interrupted", INTERRUPTED
                break
        spent = f"spent {show(_spent(runtime), 6)} of {show(cap_nusd)}"
        day = list_day(config.ladder, runtime.terms.book, datetime.now(UTC))
    if stopped:
        stopped = f"Stopped after {len(results)} of {len(samples)}, cheap ones first: {stopped} ({spent})."
    return _Run(
        Bill(tuple(results)), day, f"quality   not measured.   {spent}   next   {NEXT}", stopped, code
    )


def _upstream(config: Config) -> tuple[str, str]:
    """Return address and key of the upstream that the client stands for.

    Raises:
        LeastwiseError: the key is not set.
    """
    upstream = config.upstreams[OWN_UPSTREAM]
    if not upstream.api_key_env:
        return upstream.base_url, "none"
    key = os.environ.get(upstream.api_key_env, "")
    if not key:
        message = (
            f"--live needs a key: {upstream.api_key_env} is not set. Set it to a key of "
            f"{upstream.base_url}, or leave out --live"
        )
        raise LeastwiseError(message)
    return upstream.base_url, key


def _spent(runtime: Runtime) -> int:
    return sum(line.spent_nusd for line in runtime.store.sums(Query()))


def _worst_nusd(runtime: Runtime, sample: Sample) -> int:
    """Return the most that a sample can cost: as decided, or resent as received; a clamp may ask twice."""
    request = Request.of({"model": AUTO[0], **sample.members})
    features, now = read(request, sample.task), datetime.now(UTC)
    known = runtime.store.known(Load("", features.tool_use_ids), now.timestamp())
    made = runtime.router.decide(request, sample.task, known=known, now=now, features=features)
    bound, cap = prompt_bound(request), request.max_tokens or 0
    worst = max(
        worst_case(bound, cap, model, now, runtime.terms.book, provider=made.upstream).nusd
        for model in {made.model, made.fallback}
    )
    return worst if made.max_tokens is None else 2 * worst


def _said(error: Exception) -> str:
    """Return an SDK error in one line: the upstream's own words where it has some."""
    body = getattr(error, "body", None)
    inner = body.get("error") if isinstance(body, dict) else None
    said = inner.get("message") if isinstance(inner, dict) else None
    status = getattr(error, "status_code", "")
    return f"{status} {said or error}".strip().rstrip(".") + (
        "" if status else "; check it: leastwise doctor"
    )
