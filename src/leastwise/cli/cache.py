"""`leastwise cache`: which answers are kept, what they saved, and how to forget them."""

from __future__ import annotations

import time
from typing import Annotated, Final

from cyclopts import App, Parameter, validators

from leastwise.build import existing_cache, existing_store
from leastwise.cli.console import (
    FAILED,
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
)
from leastwise.config import load, shown_place
from leastwise.errors import ConfigError
from leastwise.report.cache import (
    MB,
    CacheReport,
    answer_json,
    answer_lines,
    list_lines,
    looked_up,
    stats_json,
    stats_lines,
    text_of,
)
from leastwise.report.table import plural
from leastwise.stores import CacheStats, CacheStore

app = App(name="cache", help="See kept answers and forget them.", help_format="plaintext")

_SHORTEST: Final = 4  # letters of a key
_COUNTED: Final = 10_000  # a dry run looks at so many answers

Tag = Annotated[str | None, Parameter(help="Only answers to requests with this tag.")]


@app.command(sort_key=1)
def stats(*, as_json: AsJson = False, config: ConfigFile = None) -> int:
    """Show how many answers are kept, how often they were given again, and what that saved."""
    settings = load(config)
    with existing_cache(settings) as cache, existing_store(settings) as store:
        kept = cache.stats() if cache is not None else CacheStats(0, 0, 0)
        by_tag = looked_up(store)
    report = CacheReport(kept, by_tag, shown_place(settings.cache_url), settings.cache.max_mb)
    print_either(stats_json(report), stats_lines(report), as_json=as_json)
    say_next("leastwise cache list")
    return OK


@app.command(name="list", sort_key=2)
def list_(
    *,
    tag: Tag = None,
    limit: Annotated[int, Parameter(help="How many.", validator=validators.Number(gte=1))] = 20,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> int:
    """List kept answers, last used first; never their text."""
    settings, now = load(config), time.time()
    with existing_cache(settings) as cache:
        entries = cache.entries(tag=tag, limit=limit) if cache is not None else []
    if as_json:
        print_json({"answers": [answer_json(key, one) for key, one in entries]})
    elif entries:
        print_lines(list_lines(entries, now))
    else:
        print_lines([f"no answer of tag {tag} is kept" if tag else "no answer is kept"])
    say_next("leastwise cache show KEY" if entries else "leastwise cache stats")
    return OK


@app.command(name="show", sort_key=3)
def show_(
    key: Annotated[str, Parameter(help="Its key, or the first letters of it.")],
    /,
    *,
    text: Annotated[
        bool, Parameter(negative=(), show_default=False, help="Print the answer's text as well.")
    ] = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> int:
    """Show one kept answer: where it came from, how old it is; its text only with --text."""
    if len(key) < _SHORTEST:
        message = f"{key!r}: give at least {_SHORTEST} letters of a key, as leastwise cache list shows them"
        raise ConfigError(message)
    settings, now = load(config), time.time()
    with existing_cache(settings) as cache:
        one = cache.get(key) if cache is not None else None
    if one is None:
        say_error(f"there is no answer whose key begins with {key}, or there are several")
        say_next("leastwise cache list")
        return FAILED
    if as_json:
        print_json(answer_json(key, one) | ({"text": text_of(one)} if text else {}))
    else:
        print_lines(answer_lines(one, now, settings.cache.ttl_s))
        if text:
            print_lines(["", text_of(one)])
    say_next(f"leastwise why {one.exchange}")
    return OK


@app.command(sort_key=4)
def clear(
    *, tag: Tag = None, dry_run: DryRun = False, as_json: AsJson = False, config: ConfigFile = None
) -> int:
    """Forget all kept answers, or those of one tag."""
    with existing_cache(load(config)) as cache:
        if cache is None:
            number = 0
        elif not dry_run:
            number = cache.clear(tag=tag)
        else:
            number = cache.stats().entries if tag is None else len(cache.entries(tag=tag, limit=_COUNTED))
    return _forgotten(number, "cache clear", is_dry=dry_run, as_json=as_json)


@app.command(sort_key=5)
def prune(*, dry_run: DryRun = False, as_json: AsJson = False, config: ConfigFile = None) -> int:
    """Forget answers that are past their time, or too many for the configured size."""
    settings = load(config)
    most_mb, is_large = settings.cache.max_mb, False
    with existing_cache(settings) as cache:
        number = 0
        if cache is not None and dry_run:
            number = _past(cache, settings.cache.ttl_s)
            is_large = cache.stats().size_bytes > most_mb * MB
        elif cache is not None:
            number = cache.prune()
    if is_large:
        say(f"and what was not used for longest, until the rest fits into {most_mb:,} MB")
    return _forgotten(number, "cache prune", is_dry=dry_run, as_json=as_json)


def _past(cache: CacheStore, ttl_s: int) -> int:
    now = time.time()
    return sum(one.at + ttl_s <= now for _, one in cache.entries(limit=_COUNTED))


def _forgotten(number: int, command: str, *, is_dry: bool, as_json: bool) -> int:
    print_either(
        {"answers": number, "forgotten": not is_dry},
        [f"{plural(number, 'answer')} {'to be forgotten' if is_dry else 'forgotten'}"],
        as_json=as_json,
    )
    if is_dry and number == _COUNTED:
        say(f"there may be more: a dry run looks at {_COUNTED:,}")
    say_next(f"leastwise {command}" if is_dry else "leastwise cache stats")
    return OK
