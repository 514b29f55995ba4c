"""`leastwise trial`: whether a cheaper tier does as well on a tag's traffic, measured.

With `--from` it tries calls from a file, here and now. Without, it opens a trial that running clients of the
same store take up: they try what they answer, beside their callers. Either way a budget of the trial's own
holds `--max-usd` exactly.
"""

from __future__ import annotations

import asyncio
import random
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter, validators

from leastwise.budget import limit_of
from leastwise.build import end_trial, existing_store, imported, open_store
from leastwise.cascade import Trial
from leastwise.cascade.trials import (
    COMPARISONS,
    MONEY,
    UNANSWERED,
    OpenTrial,
    Pairs,
    added,
    compared,
    concluded,
)
from leastwise.cli.console import (
    FAILED,
    INTERRUPTED,
    OK,
    AsJson,
    ConfigFile,
    DryRun,
    print_either,
    print_json,
    print_lines,
    say,
    say_error,
    say_next,
    talk,
)
from leastwise.config import MEMORY, Config, file_of, load
from leastwise.errors import ConfigError
from leastwise.ladder import Ladder
from leastwise.ledger import Feedback, new_id
from leastwise.models import canonical
from leastwise.money import show, to_usd
from leastwise.report.messages_log import calls_in
from leastwise.report.table import labelled, plural
from leastwise.report.trials import TrialReport, means_of, standing_words, trial_json, trial_lines
from leastwise.stores import Query, Store

if TYPE_CHECKING:
    from leastwise.build import Runtime
    from leastwise.client import Result
    from leastwise.messages import JSON, Request
    from leastwise.trial import Compare, Pair

_DEFAULT_N: Final = 500
_DEFAULT_USD: Final = "3"
_WEEK_S: Final = 7 * 24 * 3600
_MOST_JOBS: Final = 64
#: Pairs in a row without an answer: then something is wrong with the upstream, not with them.
_ENOUGH_FAILED: Final = 10
_CAUSES_SHOWN: Final = 8


def trial(
    tag: Annotated[str, Parameter(help="Whose traffic: your name for that kind of calls.")],
    /,
    *,
    tier: Annotated[str | None, Parameter(help="The tier to try. [default: the cheapest]")] = None,
    n: Annotated[
        int, Parameter(help="How many calls to compare.", validator=validators.Number(gte=1))
    ] = _DEFAULT_N,
    max_usd: Annotated[str, Parameter(help="Never spend more than this, in dollars.")] = _DEFAULT_USD,
    from_: Annotated[
        Path | None,
        Parameter(
            name="--from",
            help="Calls as leastwise.record() writes them; without, running clients try theirs.",
        ),
    ] = None,
    compare: Annotated[
        str, Parameter(help="auto, exact, json, judge, or with --from a function as module:attr.")
    ] = "auto",
    judge: Annotated[
        str | None, Parameter(help="The tier that judges. [default: the one whose answers are the measure]")
    ] = None,
    score: Annotated[
        bool,
        Parameter(
            negative=(), help="With --from: the cascade's judge scores each answer, to be calibrated by."
        ),
    ] = False,
    jobs: Annotated[
        int,
        Parameter(help="With --from: calls at once.", validator=validators.Number(gte=1, lte=_MOST_JOBS)),
    ] = 8,
    seed: Annotated[int, Parameter(help="With --from: draws another sample.")] = 0,
    status: Annotated[
        bool, Parameter(negative=(), show_default=False, help="Show how the trial of this tag stands.")
    ] = False,
    stop: Annotated[
        bool, Parameter(negative=(), show_default=False, help="End it, and keep what it shows.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> int:
    """Measure whether a cheaper tier does as well on a tag's calls."""
    if not tag.strip():
        message = "the tag is empty; give the name that your calls carry: Task(tag=...)"
        raise ConfigError(message)
    settings = load(config)
    if status or stop:
        return _of_open(tag, settings, ends=stop, as_json=as_json)
    wanted = _wanted(tag, settings.ladder, tier=tier, n=n, max_usd=max_usd, compare=compare, judge=judge)
    if score and from_ is None:
        message = "--score needs --from FILE: what running clients try is compared only"
        raise ConfigError(message)
    if from_ is None:
        return _open(wanted, settings, is_dry=dry_run, as_json=as_json)
    return _from_file(wanted, from_, jobs, seed, scores=score, is_dry=dry_run, as_json=as_json, config=config)


def _wanted(
    tag: str, ladder: Ladder, *, tier: str | None, n: int, max_usd: str, compare: str, judge: str | None
) -> OpenTrial:
    """Return the trial that is asked for.

    Raises:
        ConfigError: it cannot be meant.
    """
    name = tier if tier is not None else ladder.tiers[0].name
    if ladder[name] == ladder.top:
        message = f"--tier {name}: nothing on the ladder is dearer; try one of the tiers below it"
        raise ConfigError(message)
    if judge is not None:
        ladder[judge]
    if compare not in COMPARISONS and ":" not in compare:
        message = f"--compare {compare}: expected {', '.join(COMPARISONS)}, or a function as module:attr"
        raise ConfigError(message)
    limit_nusd = limit_of("--max-usd", max_usd)
    if not limit_nusd:
        message = f"--max-usd {max_usd}: expected more than nothing"
        raise ConfigError(message)
    now = time.time()
    id_ = new_id(now, random.SystemRandom())
    model = canonical(ladder[name].model)
    return OpenTrial(id_, tag, name, model, compare, judge or "", n, limit_nusd, now)


def _print(report: TrialReport, *, as_json: bool) -> None:
    print_either(trial_json(report), trial_lines(report), as_json=as_json)


def _report(
    wanted: OpenTrial,
    sums: Sequence[Pairs],
    state: str,
    ladder: Ladder,
    source: str = "",
    *,
    before: Trial | None = None,
    is_cut: bool = False,
) -> TrialReport:
    above = ladder.rank(wanted.tier) + 1 if wanted.tier in ladder else len(ladder.tiers)
    names = [one.name for one in ladder.tiers[above:-1]]  # the top has nothing to be tried against
    return TrialReport(wanted, sums, state, names[0] if names else "", source, before, is_cut)


def _before(store: Store, wanted: OpenTrial) -> Trial | None:
    """Return the last trial of a tag on the model that it is tried on now, if there was one."""
    found = store.evidence("").trials.get((wanted.tag, wanted.tier))
    return found if found is not None and found.model == wanted.model else None


def _quoted(word: str | Path) -> str:
    return shlex.quote(str(word))


def _command(wanted: OpenTrial, ladder: Ladder, file: Path | None = None) -> str:
    """Return the command that does what was only tried out."""
    usd = str(to_usd(wanted.limit_nusd))
    told = {
        "tier": wanted.tier if wanted.tier != ladder.tiers[0].name else "",
        "n": str(wanted.wanted) if wanted.wanted != _DEFAULT_N else "",
        "max-usd": usd if to_usd(wanted.limit_nusd) != Decimal(_DEFAULT_USD) else "",
        "compare": wanted.compare if wanted.compare != COMPARISONS[0] else "",
        "judge": wanted.judge,
        "from": "" if file is None else str(file),
    }
    options = (f"--{name} {_quoted(value)}" for name, value in told.items() if value)
    return " ".join(("leastwise trial", _quoted(wanted.tag), *options))


# --- in the shadow of running clients ----------------------------------------------------------------------


def _open(wanted: OpenTrial, settings: Config, *, is_dry: bool, as_json: bool) -> int:
    """Open a trial for running clients to take up."""
    if wanted.compare not in COMPARISONS:
        message = f"--compare {wanted.compare}: running clients import nothing; with --from FILE it works"
        raise ConfigError(message)
    where = settings.store.shown
    if file_of(settings.store.ledger_url) == MEMORY:
        message = "the ledger is in memory, where no other process sees a trial; set store.url, or use --from"
        raise ConfigError(message)
    store = open_store(settings)
    try:
        seen = sum(line.calls for line in store.sums(Query(since=time.time() - _WEEK_S, tag=wanted.tag)))
        is_open = True if is_dry else store.begin_trial(wanted)
    finally:
        store.close()
    if not is_open:
        say_error(f"a trial of tag {wanted.tag} is open already: --status shows it, --stop ends it")
        say_next(f"leastwise trial {wanted.tag} --status")
        return FAILED
    what = f"{plural(wanted.wanted, 'call')} of tag {wanted.tag} on {wanted.tier}"
    most = f"for at most {show(wanted.limit_nusd)}"
    calls = f"{plural(seen, 'call')} of this tag in the last seven days"
    state = "would open" if is_dry else "open"
    if as_json:
        print_json({**trial_json(_report(wanted, (), state, settings.ladder)), "calls_last_week": seen})
    else:
        head = f"{state}: clients that use the store below try up to"
        lines = [head, f"  {what}, {most}", f"  {calls}", *labelled("store", where)]
        print_lines(lines)
    if not seen:
        say(f"no call of this tag was seen; calls get it by Task(tag={wanted.tag!r}), in running clients")
    say_next(
        _command(wanted, settings.ladder) if is_dry else f"leastwise trial {_quoted(wanted.tag)} --status"
    )
    return OK


def _of_open(tag: str, settings: Config, *, ends: bool, as_json: bool) -> int:
    """Show how the open trial of a tag stands, or end it; where none is open, what the last one showed."""
    with existing_store(settings) as store:
        found = None
        if store is not None:
            found = next((one for one in store.open_trials() if one.tag == tag), None)
        if store is None or found is None:
            return _none_open(tag, store, ends=ends, as_json=as_json)
        sums, now, before = store.pairs_of(found.id), time.time(), _before(store, found)
        if ends:
            end_trial(store, found, settings.ladder, now)
    at = datetime.fromtimestamp(now if ends else found.at, UTC)
    state = f"{'ended' if ends else 'open since'} {at.day} {at:%b %H:%M} UTC"
    report = _report(found, sums, state, settings.ladder, before=before, is_cut=ends)
    if not ends and not as_json:
        say(f"{report.total.n:,} of {found.wanted:,} compared so far")
    _print(report, as_json=as_json)
    say_next(report.next if ends else f"leastwise trial {tag} --stop")
    return OK


def _none_open(tag: str, store: Store | None, *, ends: bool, as_json: bool) -> int:
    trials = (
        [one for one in store.evidence("").trials.values() if one.tag == tag] if store is not None else []
    )
    if ends or not trials:
        say_error(f"no trial of tag {tag} is open" + ("" if trials else ", and none was"))
        say_next(
            f"leastwise trial {tag} --status" if trials else f"leastwise trial {tag} --n 500 --max-usd 3"
        )
        return FAILED
    shown = [standing_words(one) for one in trials]
    print_either({"report": "trial", "tag": tag, "state": "over", "shown": shown}, shown, as_json=as_json)
    say_next(_after(tag, trials))
    return OK


def _after(tag: str, trials: Sequence[Trial]) -> str:
    """Return the one next command after trials that are over."""
    by_meaning = {means_of(one.agreed, one.n): one for one in trials}
    if "good" in by_meaning:
        return f"leastwise on --tag {_quoted(tag)}"
    if "thin" in by_meaning:
        thin = by_meaning["thin"]
        return f"leastwise trial {_quoted(tag)} --tier {thin.tier} --n {max(2 * thin.n, _DEFAULT_N)}"
    return "leastwise report --by tag"


# --- calls from a file -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Run:
    """How the calls of a file go.

    Attributes:
        sums: The pairs so far.
        stopped: Why it ended before its time, or "".
        failed: Pairs in a row that nobody answered.
        unscored: Pairs that were compared, and got no score.
    """

    sums: list[Pairs] = field(default_factory=list)
    stopped: str = ""
    failed: int = 0
    unscored: int = 0

    def add(self, pairs: Pairs, *, is_scored: bool = False) -> None:
        """Add one pair."""
        self.unscored += pairs.is_compared and not is_scored
        self.sums = added(self.sums, pairs)
        is_unanswered = pairs.how.startswith(UNANSWERED)
        self.failed = self.failed + 1 if is_unanswered else 0
        if pairs.how == MONEY:
            self.stopped = "--max-usd is used up"
        elif self.failed >= _ENOUGH_FAILED:
            self.stopped = f"{_ENOUGH_FAILED} calls in a row without an answer: leastwise doctor"


def _from_file(
    wanted: OpenTrial,
    file: Path,
    jobs: int,
    seed: int,
    *,
    scores: bool,
    is_dry: bool,
    as_json: bool,
    config: Path | None,
) -> int:
    from leastwise.build import Runtime
    from leastwise.cli.connections import key_of

    function = _function(wanted.compare) if wanted.compare not in COMPARISONS else None
    with Runtime.open(path=config) as runtime:
        ladder, upstreams = runtime.config.ladder, runtime.config.upstreams
        drawn = _drawn(runtime, wanted, file, seed)
        if not drawn.calls:
            say_error(f"{file}: no call of tag {wanted.tag} is one to try on {wanted.tier}")
            _say_left_out(drawn)
            say_next('leastwise.record(client, "calls.jsonl") in the program that calls')
            return FAILED
        pair_of = partial(runtime.pair, wanted, function=function, scores=scores)
        if is_dry:
            pairs = [pair_of(*call) for call in drawn.calls]
            return _say_most(wanted, drawn, pairs, ladder, file, as_json=as_json)
        for name in {ladder[one].upstream for one in (wanted.tier, wanted.judge or ladder.top.name)}:
            key_of(name, upstreams[name])  # refuses one that is not set
        run, code, before = _Run(), OK, _before(runtime.store, wanted)
        with _progress(len(drawn.calls), run) as advance:
            try:
                asyncio.run(_ask_all(runtime, starmap(pair_of, drawn.calls), jobs, run, advance))
            except KeyboardInterrupt:
                run.stopped, code = "interrupted", INTERRUPTED
        shown = concluded(wanted, run.sums, ladder, time.time())
        if shown is not None:
            runtime.store.put_trial(shown)
    is_cut = code == INTERRUPTED
    has_more = drawn.at_hand > len(drawn.calls) or run.stopped
    source = _quoted(file) if has_more else ""
    report = _report(wanted, run.sums, file.name, ladder, source, before=before, is_cut=is_cut)
    _print(report, as_json=as_json)
    if run.stopped:
        tried = sum(one.n for one in run.sums)
        say(f"stopped after {tried:,} of {len(drawn.calls):,}: {run.stopped}")
    _say_left_out(drawn)
    if scores and run.unscored:
        why = "its judge had compared them, or is not shown such a task or answer"
        say(f"without a score: {plural(run.unscored, 'answer')}, for {why}")
    say_next("leastwise tune calibrate" if scores else report.next)
    return FAILED if code == OK and shown is None else code


@dataclass(slots=True)
class _Drawn:
    """Calls of a file: those drawn, how many there were to draw from, and why others were not."""

    calls: list[tuple[Request, Mapping[str, JSON]]] = field(default_factory=list)
    at_hand: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


def _drawn(runtime: Runtime, wanted: OpenTrial, file: Path, seed: int) -> _Drawn:
    """Return so many calls as are wanted, each as likely as any other.

    Raises:
        LogError: the file cannot be read.
    """
    found, rng = _Drawn(), random.Random(seed)  # noqa: S311 - a sample
    for call in calls_in(file, lambda line, fault: say(f"{file}:{line}: {fault}")):
        if call.tag not in ("", wanted.tag):
            found.left_out[f"of tag {call.tag}"] += 1
            continue
        made = runtime.pair(wanted, call.request, call.message) if call.message else "has no answer"
        if isinstance(made, str):
            found.left_out[made] += 1
            continue
        found.at_hand += 1
        place = rng.randrange(found.at_hand)
        if len(found.calls) < wanted.wanted:
            found.calls.append((call.request, call.message))
        elif place < wanted.wanted:
            found.calls[place] = (call.request, call.message)
    return found


def _say_left_out(drawn: _Drawn) -> None:
    for why, many in drawn.left_out.most_common(_CAUSES_SHOWN):
        say(f"left out: {plural(many, 'call')}, {why}")


def _say_most(
    wanted: OpenTrial,
    drawn: _Drawn,
    pairs: Iterable[Pair | str],
    ladder: Ladder,
    file: Path,
    *,
    as_json: bool,
) -> int:
    from leastwise.trial import most_nusd

    bound = sum(most_nusd(pair) for pair in pairs if not isinstance(pair, str))
    most = min(bound, wanted.limit_nusd)
    if as_json:
        value = {"calls_at_hand": drawn.at_hand, "would_try": len(drawn.calls), "left_out": drawn.left_out}
        sums = {"most_usd": to_usd(most), "all_of_them_most_usd": to_usd(bound)}
        print_json({"report": "trial", "tag": wanted.tag, "tier": wanted.tier, **value, **sums})
    else:
        tried = f"{plural(drawn.at_hand, 'call')} at hand, {len(drawn.calls):,} of them would be tried"
        costs = f"{show(most)} at most: all could cost {show(bound)}, --max-usd is {show(wanted.limit_nusd)}"
        sys.stdout.write(f"tag {wanted.tag} on {wanted.tier}: {tried}\n{costs}\n")
    _say_left_out(drawn)
    say_next(_command(wanted, ladder, file))
    return OK


async def _ask_all(
    runtime: Runtime, pairs: Iterable[Pair | str], jobs: int, run: _Run, advance: Callable[[], None]
) -> None:
    """Try all pairs, so many at once, until something stops it."""
    from leastwise.cli.connections import Connections
    from leastwise.client import run_async
    from leastwise.trial import try_pair

    waiting = (pair for pair in pairs if not isinstance(pair, str))

    async def work() -> None:
        for pair in waiting:
            if run.stopped:
                return
            result = await run_async(try_pair(pair), upstream, runtime.desk)
            run.add(result.payload, is_scored=_tell_agreement(runtime, result))
            advance()

    async with Connections(runtime.config.upstreams) as upstream:
        await asyncio.gather(*(work() for _ in range(jobs)))


def _tell_agreement(runtime: Runtime, result: Result) -> bool:
    """Keep whether an answer was as good as the one it was compared with; tell whether it has a score."""
    outcome = result.life.outcome
    if outcome is None or all(one.score is None for one in outcome.checks):
        return False
    said = Feedback(outcome.exchange, bool(result.payload.agreed), "agreement", time.time(), outcome.tier)
    runtime.store.flush()
    runtime.store.add_feedback(said)
    return True


@contextmanager
def _progress(total: int, run: _Run) -> Iterator[Callable[[], None]]:
    """Show on a terminal how far it is and what it costs; gives what tells that one more is done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("comparing"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[cost]}"))
    shown = Progress(
        *columns, TimeRemainingColumn(), console=talk(), transient=True, disable=not sys.stderr.isatty()
    )
    with shown:
        task = shown.add_task("", total=total, cost=show(0))
        yield lambda: shown.update(task, advance=1, cost=show(compared(run.sums).spent_nusd))


def _function(named: str) -> Compare:
    """Return a comparison of the user's, which may stand in the working directory.

    Raises:
        ConfigError: it cannot be imported.
    """
    sys.path.insert(0, str(Path.cwd()))  # whoever names it here means it
    try:
        return imported(named, f"--compare {named}")
    finally:
        sys.path.pop(0)
