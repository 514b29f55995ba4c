"""`leastwise doctor`: everything a call needs, looked at one by one, each with what to do.

Nothing that costs is sent: the upstream is only asked which models it has. A key is never
printed.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import metadata
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from rich.table import Table

from leastwise.budget import BudgetRule
from leastwise.build import Plans, existing_store, open_cache, open_store
from leastwise.cascade import NO_EVIDENCE, Evidence, Plan, stamp_of
from leastwise.catalogue import Catalogue, Row, known_models
from leastwise.cli.config import verify_ladder
from leastwise.cli.console import FAILED, OK, AsJson, ConfigFile, answer, print_json, say_next
from leastwise.cli.init import list_models, reason
from leastwise.command import missing
from leastwise.config import (
    MEMORY,
    Config,
    Upstream,
    file_of,
    load,
    masked,
    misspelt,
    price_book,
    shown_place,
)
from leastwise.errors import ConfigError, StoreError, UpstreamFailure
from leastwise.judge import VERSION
from leastwise.models import Model, Models, canonical
from leastwise.money import show
from leastwise.prices import check_judge
from leastwise.report.cascade import passes_often, planted_of, planted_words
from leastwise.report.table import plural
from leastwise.stores import Query, Store

State = Literal["ok", "warn", "fail"]

_SOON: Final = timedelta(days=60)
_LATELY: Final = timedelta(days=7)
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_MOUNTS: Final = Path("/proc/self/mounts")
#: SQLite's locks are not reliable there, so two writers could damage the file.
_NETWORK: Final = frozenset(
    {
        *(
            "9p",
            "afs",
            "beegfs",
            "ceph",
            "cifs",
            "gpfs",
            "lustre",
            "nfs",
            "nfs4",
            "smb3",
            "smbfs",
            "virtiofs",
        ),
        *("fuse.glusterfs", "fuse.s3fs", "fuse.sshfs"),
    }
)
#: These end with the container or the machine's uptime.
_FLEETING: Final = frozenset({"overlay", "ramfs", "tmpfs"})
_CALLERS: Final = frozenset({"session", "tag"})
_SDK_KEY, _SDK_TOKEN = "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"
_SDK_FROM: Final = (0, 93)
_SDK_BELOW: Final = (3,)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: what was found, and what to do about it ("" when it is well)."""

    name: str
    state: State
    words: str
    do: str = ""


def doctor(*, config: ConfigFile = None, as_json: AsJson = False) -> int:
    """Check configuration, prices, store, key and upstream; exit code 1 when something is wrong."""
    found = list(examine(config, os.environ, datetime.now(UTC)))
    is_well = all(check.state != "fail" for check in found)
    if as_json:
        print_json({"ok": is_well, "checks": [asdict(check) for check in found]})
        return OK if is_well else FAILED
    table = Table(box=None, pad_edge=False, show_header=False)
    for check in found:
        table.add_row(check.state, check.name, check.words)
        if check.do:
            table.add_row("", "", f"-> {check.do}")
    answer().print(table)
    say_next("leastwise route 'Is this spam? Win $1000 now!!!'" if is_well else "leastwise doctor")
    return OK if is_well else FAILED


def examine(path: Path | None, environ: Mapping[str, str], at: datetime) -> Iterator[Check]:
    """Yield what is found of each thing, in the order in which to mend it.

    Args:
        path: The configuration file, when not the one that is looked for.
        environ: The environment.
        at: Now.
    """
    try:
        config = load(path, environ)
    except ConfigError as error:
        for line in str(error).splitlines():
            yield Check("config", "fail", line, "leastwise config check, when mended")
        return
    files = ", ".join(map(str, config.files)) or "no file, so defaults"
    yield Check("config", "ok", files, "" if config.files else "to change any: leastwise init")
    for name, meant in misspelt(environ).items():
        yield Check("config", "warn", f"the variable {name} means nothing", f"rename it to {meant}")
    yield _of_mode(config)
    yield _of_ladder(config, at)
    upstreams = list(_of_upstreams(config, environ, at))  # first: what they list is gone by below
    models = known_models(config.cache_folder, config.base_urls)
    yield from _of_models(config, models, at)
    yield from _of_store(config, models, at)
    yield from _of_servers(config)
    yield from _of_cascade(config, environ, at)
    yield from _of_scopes(config.budgets)
    yield from upstreams
    yield _of_sdk(_installed_sdk())


def _of_mode(config: Config) -> Check:
    if config.mode == "observe" and not config.reroute and not config.switches:
        return Check("mode", "ok", "observe: real model ids are left alone, nothing is saved", "leastwise on")
    return Check("mode", "ok", f"{config.mode} ({config.origins.get('mode', 'default')})")


def _of_ladder(config: Config, at: datetime) -> Check:
    try:
        verify_ladder(config, at)
    except ConfigError as error:
        return Check("ladder", "fail", str(error), "edit the file that `leastwise config path` names")
    return Check("ladder", "ok", " < ".join(tier.model for tier in config.ladder))


def _of_models(config: Config, models: Models, at: datetime) -> Iterator[Check]:
    """Yield what is to be said of the ladder's models: retired, soon to be, or not known to us."""
    for tier in config.ladder:
        name = f"{tier.name} = {tier.model}"
        if tier.model not in models:
            yield Check("models", "warn", f"{name} is not a model we know: what it accepts is not checked")
        yield from _of_retirement(name, models.get(tier.model), at, "name a newer model in its [[tier]]")


def _of_retirement(name: str, model: Model | None, at: datetime, mend: str) -> Iterator[Check]:
    if model is None or model.retires is None or model.retires > (at + _SOON).date():
        return
    is_gone = model.retires <= at.date()
    words = f"{name} {'was retired' if is_gone else 'retires'} on {model.retires}"
    yield Check("models", "fail" if is_gone else "warn", words, mend)


# --- the store -------------------------------------------------------------------------------


def _of_store(config: Config, models: Models, at: datetime) -> Iterator[Check]:
    if not config.store.path:
        yield from _of_calls(config, models, at)
        return
    if config.store.path == MEMORY:
        yield Check("store", "warn", "in memory: it ends with the process", "give it a file: [store] url")
        return
    file = Path(config.store.path)
    writing = _can_write(file)
    yield writing
    if writing.state == "ok" and file.exists():
        yield from _of_calls(config, models, at)
    if file.exists() and os.name == "posix" and file.stat().st_mode & _OTHERS:
        yield Check("store", "warn", f"{file} can be read by others", f"chmod 600 {file}")
    yield from _of_mount(file, mount_of(file, _mounts()))


def _of_servers(config: Config) -> Iterator[Check]:
    """Yield whether the servers that keep ledger, budgets and answers can be reached."""
    budget_url, cache_url = config.store.budget_url, config.cache_url
    if _has_server(config):
        urls = dict.fromkeys((config.store.ledger_url, budget_url))
        names = " and ".join(shown_place(url) for url in urls if not file_of(url))
        yield _of_server("store", names, lambda: open_store(config).close())
    if config.cache.on != "off" and not file_of(cache_url):
        yield _of_server("cache", shown_place(cache_url), lambda: open_cache(config).close())


def _has_server(config: Config) -> bool:
    return not (file_of(config.store.ledger_url) and file_of(config.store.budget_url))


def _of_server(name: str, where: str, reach: Callable[[], None]) -> Check:
    try:
        reach()
    except (ConfigError, StoreError) as error:
        return Check(name, "fail", masked(str(error)), "check address, network and password: [store]")
    return Check(name, "ok", f"{where} answers")


def _of_scopes(budgets: Sequence[BudgetRule]) -> Iterator[Check]:
    """Yield the budgets whose limit callers can dodge by another name, with none around them."""
    if any(not _CALLERS & {*rule.scope} and not rule.only and rule.scope != ("model",) for rule in budgets):
        return
    for rule in budgets:
        named = " and ".join(scope for scope in rule.scope if scope in _CALLERS)
        if named:
            words = f"{rule.name} counts by {named}, which callers name: another name has another limit"
            yield Check("budget", "warn", words, "leastwise budget set all --limit USD")


def _of_leases(store: Store) -> Iterator[Check]:
    """Yield what processes left behind that died before they told what a call cost."""
    dead = store.dead()
    lost = [entry for entry in store.lost() if not entry.is_pending]
    if dead:
        held = show(sum(reserved.worst_nusd for reserved in dead))
        words = f"{held} reserved for {plural(len(dead), 'call')} of processes that died"
        yield Check("budget", "warn", words, "leastwise budget reconcile")
    if lost:
        most = show(sum(entry.cost_nusd for entry in lost))
        words = f"{plural(len(lost), 'call')} counted at the most, {most}: their process died"
        yield Check("budget", "warn", words, "leastwise budget reconcile --entry ID --usd X")


def _of_cascade(config: Config, environ: Mapping[str, str], at: datetime) -> Iterator[Check]:
    """Yield what is checked, and what keeps checks from being of use."""
    try:
        check_judge(config.cascade.judge, config.ladder, at, price_book(config))
    except ConfigError as error:
        yield Check("cascade", "fail", str(error), "edit the file that `leastwise config path` names")
        return
    plan = Plans(config, imports=False).usual
    if plan.checks:
        by = f", by {plan.judge}" if plan.is_judged else ""
        yield Check("checks", "ok", ", ".join(check.name for check in plan.checks) + by)
    try:
        Plans(config)
    except ConfigError as error:
        if isinstance(error.__cause__, ModuleNotFoundError):
            mend = "see that your program finds it: it need not be on this command's path"
            yield Check("cascade", "warn", str(error), mend)
        else:
            yield Check("cascade", "fail", str(error), "mend its [[check]]")
    for row in config.checks:
        lacking = missing(row, environ) if row.command else ""
        if lacking:
            words = f"[[check]] {row.name}: {lacking}"
            yield Check("cascade", "warn", words, "mend its command, or its folder, the whole path")
    if plan.is_judged:
        with (
            suppress(StoreError, ConfigError),
            existing_store(config) as store,
        ):  # of which another check tells
            evidence = store.evidence(plan.digest) if store is not None else NO_EVIDENCE
            yield from _of_judge(config, plan, evidence)


def _of_judge(config: Config, plan: Plan, evidence: Evidence) -> Iterator[Check]:
    """Yield what keeps the judge from being of use."""
    assert plan.judge is not None
    stamps = {stamp_of(plan, tier.model, VERSION) for tier in config.ladder}
    proven = {stamp for (stamp, _), one in evidence.calibrations.items() if one.threshold is not None}
    entry = config.ladder.tiers[0]
    is_self = canonical(plan.judge.model) == canonical(entry.model)
    if is_self and not plan.trusts_self and stamp_of(plan, entry.model, VERSION) not in proven:
        words = (
            f"{entry} is its own judge, not calibrated: none of its answers is accepted, calls begin above"
        )
        yield Check(
            "cascade", "warn", words, 'leastwise tune calibrate, or another: [cascade] judge = "sonnet"'
        )
    if proven and not proven & stamps:
        words = f"{plural(len(proven), 'calibration')} of another judge, model or question: not used any more"
        yield Check("cascade", "warn", words, "leastwise tune calibrate")
    planted = planted_of(evidence, plan, config.ladder)
    if passes_often(planted):
        words = f"the judge accepted {planted_words(planted)}"
        yield Check("cascade", "warn", words, "leastwise tune calibrate, or a better judge: [cascade] judge")


def _of_mount(file: Path, kind: str) -> Iterator[Check]:
    if kind in _NETWORK:
        words = f"{file} lies on a network file system ({kind}), where SQLite's locks do not hold"
        yield Check("store", "fail", words, "put it on a local disk: [store] url, or LEASTWISE_STORE_URL")
    elif kind in _FLEETING:
        words = f"{file} lies on {kind}: lost when container or machine ends, another in each container"
        yield Check("store", "warn", words, "put it on a volume: [store] url, or LEASTWISE_STORE_URL")


def _can_write(file: Path) -> Check:
    """Tell whether the ledger can be written, without making it."""
    if not file.exists():
        folder = next(folder for folder in file.parents if folder.exists())
        if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
            return Check("store", "ok", f"{file} will be made by the first call")
        return Check("store", "fail", f"{folder} cannot be written to", "choose another place: [store] url")
    try:
        connection = sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=1)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
            return Check("store", "ok", f"{file}, in use at the moment")
        return Check("store", "fail", f"{file}: {error}", "mend its rights, or choose another: [store] url")
    except sqlite3.DatabaseError as error:
        return Check("store", "fail", f"{file}: {error}", "move it away, or choose another: [store] url")
    return Check("store", "ok", str(file))


def _of_calls(config: Config, models: Models, at: datetime) -> Iterator[Check]:
    """Yield what the ledger says of the last days: faults of ours, misfits, models that retire."""
    try:
        store = open_store(config)
        try:
            since = (at - _LATELY).timestamp()
            lines, misfits = store.sums(Query(since=since, by=("asked",))), store.misfits(since)
            leases = list(_of_leases(store)) if config.budgets else []
        finally:
            store.close()
    except StoreError as error:
        if not _has_server(config):  # of which another check tells
            yield Check("store", "fail", str(error))
        return
    calls, faults = sum(line.calls for line in lines), sum(line.faults for line in lines)
    if faults:
        words = f"{faults:,} of {calls:,} calls in {_LATELY.days} days went unrouted: a fault of Leastwise"
        yield Check("calls", "warn", words, "leastwise report; please tell us what the log says")
    elif calls:
        yield Check("calls", "ok", f"{calls:,} in {_LATELY.days} days, none unrouted by a fault of ours")
    for (model, member), refused in sorted(misfits.items()):
        about = f" for {member}" if member else ""
        words = f"{model} refused {plural(refused, 'request')} taken to fit it{about}; another model answered"
        yield Check("misfit", "warn", words, "leastwise report; please tell us what they had in common")
    yield from leases
    for line in lines:
        (asked,) = line.group
        times = plural(line.calls, "time")
        name = f"{asked}, asked for {times} in {_LATELY.days} days,"
        yield from _of_retirement(name, models.get(asked), at, "name a newer model where it is called")


def _mounts() -> str:
    try:
        return _MOUNTS.read_text("utf-8", "replace")
    except OSError:
        return ""  # not Linux: not known


def mount_of(file: Path, mounts: str) -> str:
    """Return the type of file system that holds `file`, by the text of `/proc/self/mounts`; "" if unknown."""
    places = {}
    for line in mounts.splitlines():
        _, place, kind, *_ = [*line.split(" "), "", "", ""]
        places[place.replace("\\040", " ")] = kind
    resolved = file.resolve()
    return next((places[str(folder)] for folder in resolved.parents if str(folder) in places), "")


# --- keys and upstreams ----------------------------------------------------------------------


def _of_upstreams(config: Config, environ: Mapping[str, str], at: datetime) -> Iterator[Check]:
    """Yield what is to be said of keys and upstreams; what these list is kept."""
    for name in dict.fromkeys(tier.upstream for tier in config.ladder):
        upstream = config.upstreams[name]
        variable = upstream.api_key_env
        key = environ.get(variable, "")
        if variable == _SDK_KEY and not key and environ.get(_SDK_TOKEN):
            words = f"{_SDK_TOKEN} is set and does for the client, but {variable} is not"
            yield Check("key", "warn", words, f"for `route --send` and `init`: export {variable}=...")
            continue
        if variable and not key:
            yield Check(
                "key", "fail", f"{variable} is not set, upstream {name} wants it", f"export {variable}=..."
            )
            continue
        if variable:
            yield Check("key", "ok", f"{variable} is set")
            if _is_open(upstream.base_url):
                yield Check("key", "warn", f"{upstream.base_url} gets the key unencrypted", "use https")
        asked = [tier.model for tier in config.ladder if tier.upstream == name]
        keep = partial(Catalogue(config.cache_folder).keep, upstream.base_url, now=at.timestamp())
        yield from _of_upstream(name, upstream, key, asked, keep)


def _is_open(base_url: str) -> bool:
    """Tell whether what is sent there can be read on the way."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    try:
        is_here = ip_address(host).is_loopback
    except ValueError:
        is_here = host == "localhost"
    return parts.scheme == "http" and not is_here


def _of_upstream(
    name: str, upstream: Upstream, key: str, asked: Collection[str], keep: Callable[[list[Row]], None]
) -> Iterator[Check]:
    where = f"{name} at {upstream.base_url}"
    try:
        rows: list[Row] = [*asyncio.run(list_models(upstream, key))]
    except UpstreamFailure as failure:
        yield _of_failure(where, failure)
        return
    keep(rows)
    yield Check("upstream", "ok", f"{where} answers, {len(rows)} models")
    plain = {canonical(str(row.get("id"))) for row in rows}
    for model in asked:
        if rows and canonical(model) not in plain:
            yield Check(
                "upstream", "fail", f"{name} does not offer {model}", "name another model in its [[tier]]"
            )


def _of_failure(where: str, failure: UpstreamFailure) -> Check:
    if failure.status in (401, 403):
        return Check("upstream", "fail", f"{where} refuses the key: {reason(failure)}", "give it another key")
    if failure.status in (404, 405, 501):
        return Check("upstream", "warn", f"{where} answers, but does not list its models")
    if failure.status is not None:
        return Check("upstream", "fail", f"{where} answers an error: {reason(failure)}", "try again later")
    mend = "check address, network and proxy"
    return Check("upstream", "fail", f"{where} cannot be reached: {reason(failure)}", mend)


# --- the client ------------------------------------------------------------------------------


def _installed_sdk() -> str | None:
    try:
        return metadata.version("anthropic")
    except metadata.PackageNotFoundError:
        return None


def _of_sdk(version: str | None) -> Check:
    if version is None:
        mend = "for leastwise.Anthropic: pip install 'leastwise[anthropic]'"
        return Check("sdk", "warn", "the anthropic package is not installed", mend)
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if not _SDK_FROM <= numbers < _SDK_BELOW:
        mend = "pip install 'leastwise[anthropic]'"
        return Check("sdk", "fail", f"anthropic {version} is not supported: 0.93 up to below 3 is", mend)
    return Check("sdk", "ok", f"anthropic {version}")
