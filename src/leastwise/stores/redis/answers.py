"""Answers on a server. Each is a key that ends by itself; indexes beside them know their size and last use.

What leads is a key, too. It names its owner, who says every few seconds that it lives, on a key that ends
soon after the last time.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
from redis.commands.core import Script

from leastwise.cache import Found, Stored
from leastwise.errors import StoreError
from leastwise.sqlite import at_fork
from leastwise.stores import CacheStats
from leastwise.stores.redis.server import SILENT_S, Server, new_owner
from leastwise.stores.worker import Worker

_log: Final = logging.getLogger(__name__)

_MB: Final = 1_000_000
_ROW_BYTES: Final = 700  # what an answer takes beside its body
_LONGEST_CALL_S: Final = 900
_BEAT_S: Final = 5.0
_FREE_S: Final = 60
_SPARE_S: Final = 3600  # how long an answer past its time can still be shown, unless its space is needed
_PAGE: Final = 500

# KEYS: keys of answers by their last use, and by when they were kept; their sizes; their hits; the sums of
# both. What is there for one answer only is named from the prefix in ARGV[1].
_ANSWERS_LUA: Final = r"""
local USED, KEPT, SIZES, HITS, TOTALS = unpack(KEYS)
local PREFIX = ARGV[1]

local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function forget(key)
  local size = redis.call('HGET', SIZES, key)
  if not size then
    return 0
  end
  redis.call('HINCRBY', TOTALS, 'size', -size)
  redis.call('HINCRBY', TOTALS, 'hits', -(redis.call('HGET', HITS, key) or 0))
  redis.call('HDEL', SIZES, key)
  redis.call('HDEL', HITS, key)
  redis.call('ZREM', USED, key)
  redis.call('ZREM', KEPT, key)
  redis.call('DEL', PREFIX .. 'answer:' .. key)
  return 1
end

local function prune(until_at, most, limit)  -- what is past its time, and the longest unused over the size
  local count = 0
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEPT, '-inf', until_at, 'LIMIT', 0, limit)) do
    count = count + forget(key)
  end
  while count < limit and tonumber(redis.call('HGET', TOTALS, 'size') or 0) > tonumber(most) do
    count = count + forget(redis.call('ZRANGE', USED, 0, 0)[1])
  end
  return count
end
"""

_LOOK_UP_LUA: Final = r"""
local key, until_at, leads, owner, token, longest_s, silent_s = unpack(ARGV, 2)
local flight = PREFIX .. 'flight:' .. key
local at, stored = unpack(redis.call('HMGET', PREFIX .. 'answer:' .. key, 'at', 'stored'))
if stored and tonumber(at) > tonumber(until_at) then
  redis.call('HINCRBY', TOTALS, 'hits', 1)
  redis.call('ZADD', USED, now_us(), key)
  return {stored, redis.call('HINCRBY', HITS, key, 1) - 1, 0}
end
if not stored then
  forget(key)
end
if leads == '0' then
  return {false, 0, 0}
end
local holder = redis.call('GET', flight)
if holder == 'everybody' then
  return {false, 0, 1}
end
if holder and holder ~= token
    and redis.call('EXISTS', PREFIX .. 'lives:' .. string.match(holder, '^[^ ]*')) == 1 then
  return {false, 0, 0}
end
redis.call('SET', flight, token, 'EX', longest_s)
redis.call('SET', PREFIX .. 'lives:' .. owner, 1, 'EX', silent_s)
return {false, 0, 2}
"""

_SAVE_LUA: Final = r"""
local key, until_at, most, at, size, ends_s, free_s, tag, stored = unpack(ARGV, 2)
local answer, flight = PREFIX .. 'answer:' .. key, PREFIX .. 'flight:' .. key
forget(key)
if tonumber(size) > tonumber(most) then
  redis.call('SET', flight, 'everybody', 'EX', free_s)
  return
end
redis.call('DEL', flight)
redis.call('HSET', answer, 'at', at, 'tag', tag, 'stored', stored)
redis.call('EXPIRE', answer, ends_s)
redis.call('HSET', SIZES, key, size)
redis.call('ZADD', USED, now_us(), key)
redis.call('ZADD', KEPT, at, key)
redis.call('HINCRBY', TOTALS, 'size', size)
prune(until_at, most, 100)
"""

_PRUNE_LUA: Final = "return prune(ARGV[2], ARGV[3], 500)"

_FORGET_LUA: Final = r"""
local count = 0
for i = 2, #ARGV do
  count = count + forget(ARGV[i])
end
return count
"""

_LAND_LUA: Final = r"""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return
end
if ARGV[2] == '1' then
  redis.call('SET', KEYS[1], 'everybody', 'EX', ARGV[3])
else
  redis.call('DEL', KEYS[1])
end
"""

_KEYS: Final = ("used", "kept", "sizes", "hits", "totals")
_NOBODY_LEADS, _LEADS = 1, 2  # what a look-up says where nothing is found

_decode: Final = msgspec.msgpack.Decoder(Stored).decode
_encode: Final = msgspec.msgpack.Encoder().encode


class RedisCache:
    """A `CacheStore` on a Redis or Valkey server.

    Args:
        url: Where; see the text of the package.
        ttl_s: How long an answer may be given again, in seconds.
        max_mb: How much is kept, in megabytes; what was not used for longest goes first.
        clock: Seconds since the epoch.

    Raises:
        StoreError: the server cannot be reached or used; names host and port.
    """

    is_near = False

    def __init__(
        self,
        url: str,
        *,
        ttl_s: float = 86_400,
        max_mb: float = 512,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._server = server = Server(url, StoreError)
        self._ttl_s = ttl_s
        self._most_bytes = int(max_mb * _MB)
        self._clock = clock
        self._keys = [server.key(name) for name in _KEYS]
        scripts = (_LOOK_UP_LUA, _SAVE_LUA, _PRUNE_LUA, _FORGET_LUA)
        self._look_up, self._save, self._prune, self._forget = (
            server.client.register_script(_ANSWERS_LUA + script) for script in scripts
        )
        self._flights = _Flights(server)
        self._worker = Worker(self._flights.tick, "leastwise-cache", every_s=_BEAT_S)
        weakref.finalize(self, _end, self._flights, self._worker)

    def _run(self, script: Script, *args: str | bytes | float) -> Any:
        with self._server.asking():
            return script(keys=self._keys, args=[self._server.prefix, *args])

    @property
    def _until_at(self) -> float:
        """What was kept then, or before, is past its time."""
        return self._clock() - self._ttl_s

    def look_up(self, key: str, *, leads: bool) -> Found:
        """Return the answer under `key` if it is fresh; else, with `leads`, whether this caller is to ask.

        Raises:
            StoreError: the server cannot be asked.
        """
        if self._flights.is_given_up(key):
            self._flights.land([key])
        owner = self._flights.owner
        token = f"{owner} {secrets.token_hex(4)}"
        told = (self._until_at, int(leads), owner, token, _LONGEST_CALL_S, int(SILENT_S))
        body, hits, says = self._run(self._look_up, key, *told)
        if body is not None:
            return Found(self._decoded(body, hits))
        if says == _LEADS:
            self._flights.led[key] = token
            self._worker.start()
        return Found(is_leading=says in (_LEADS, _NOBODY_LEADS))

    def _decoded(self, body: bytes, hits: int) -> Stored:
        with self._server.asking():
            return replace(_decode(body), hits=hits)

    def save(self, key: str, stored: Stored) -> None:
        """Keep an answer, replacing what was there, and end the lead; evict what is over the size.

        Raises:
            StoreError: the server cannot be asked, or the answer's names cannot be kept.
        """
        try:
            with self._server.asking():
                body = _encode(replace(stored, hits=0))
            sizes = (self._most_bytes, stored.at, len(stored.body) + _ROW_BYTES, int(self._ttl_s) + _SPARE_S)
            self._run(self._save, key, self._until_at, *sizes, _FREE_S, stored.tag, body)
        except StoreError:
            self.land(key)
            raise
        self._flights.led.pop(key, None)

    def land(self, key: str, *, frees: bool = False) -> None:
        """End the lead without an answer; with `frees` all who look within a minute lead.

        Blocks nowhere, and may be called by the garbage collector.
        """
        if self._flights.give_up(key, frees=frees):
            self._worker.put(key)

    def entries(self, *, tag: str | None = None, limit: int = 100) -> list[tuple[str, Stored]]:
        """Return kept answers with their keys, last used first; only of a tag, when given."""
        keys = [key for key, of_tag in self._tagged() if tag in (None, of_tag)]
        return [found for at in range(0, len(keys), _PAGE) for found in self._read(keys[at : at + _PAGE])][
            :limit
        ]

    def _tagged(self) -> Iterator[tuple[str, str]]:
        """Yield all keys, last used first, with their tags."""
        with self._server.asking():
            names: Any = self._server.client.zrevrange(self._server.key("used"), 0, -1)
            for at in range(0, len(names), _PAGE):
                keys = [name.decode() for name in names[at : at + _PAGE]]
                pipe = self._server.pipeline()
                for key in keys:
                    pipe.hget(self._server.key(f"answer:{key}"), "tag")
                tags = pipe.execute()
                yield from [
                    (key, tag.decode()) for key, tag in zip(keys, tags, strict=True) if tag is not None
                ]

    def _read(self, keys: Sequence[str]) -> list[tuple[str, Stored]]:
        pipe = self._server.pipeline()
        for key in keys:
            pipe.hget(self._server.key(f"answer:{key}"), "stored").hget(self._server.key("hits"), key)
        with self._server.asking():
            found = pipe.execute()
        triples = zip(keys, found[::2], found[1::2], strict=True)
        return [(key, self._decoded(body, int(hits or 0))) for key, body, hits in triples if body is not None]

    def get(self, key: str) -> Stored | None:
        """Return the one answer whose key begins so, fresh or not, else None; counts no hit."""
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", key) + "*"
        with self._server.asking():
            names: Any = self._server.client.zscan_iter(self._server.key("used"), pattern, _PAGE)
            found = {name.decode() for name, _ in names}
        read = self._read(list(found)) if len(found) == 1 else []
        return read[0][1] if read else None

    def stats(self) -> CacheStats:
        """Return what is kept."""
        self._worker.flush()
        pipe = self._server.pipeline(is_atomic=True)
        pipe.hmget(self._server.key("totals"), "size", "hits").zcard(self._server.key("used"))
        with self._server.asking():
            (size, hits), entries = pipe.execute()
        return CacheStats(entries, int(size or 0), int(hits or 0))

    def clear(self, *, tag: str | None = None) -> int:
        """Forget all answers, or those of a tag; return how many."""
        keys = [key for key, of_tag in self._tagged() if tag in (None, of_tag)]
        return sum(self._run(self._forget, *keys[at : at + _PAGE]) for at in range(0, len(keys), _PAGE))

    def prune(self) -> int:
        """Forget what is past its time or over the size; return how many."""
        count = 0
        while found := self._run(self._prune, self._until_at, self._most_bytes):
            count += found
        return count

    def close(self) -> None:
        """End what this process leads, and close the connections."""
        _end(self._flights, self._worker)
        self._server.close()


class _Flights:
    """What this process leads; while it leads something it says now and then that it lives."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._land = server.client.register_script(_LAND_LUA)
        self._begin()
        at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self.owner = new_owner()
        self.led: dict[str, str] = {}
        self._given_up: dict[str, tuple[str, bool]] = {}

    def give_up(self, key: str, *, frees: bool) -> bool:
        """Have a lead ended soon; tell whether there is one. Blocks nowhere."""
        token = self.led.pop(key, None)
        if token is not None:
            self._given_up[key] = (token, frees)
        return token is not None

    def is_given_up(self, key: str) -> bool:
        """Tell whether the server has still to hear that this lead ended."""
        return key in self._given_up

    def tick(self, keys: list[str]) -> list[str]:
        """End these leads, and say that this process lives; return those that could not be ended."""
        try:
            self.land(keys)
            if self.led:
                with self._server.asking():
                    self._server.client.set(self._server.key(f"lives:{self.owner}"), 1, ex=int(SILENT_S))
        except StoreError as error:
            _log.warning("%d answers are waited for that nobody asks for: %s", len(self._given_up), error)
        return [key for key in keys if key in self._given_up]

    def land(self, keys: list[str]) -> None:
        """End those of these leads that were given up.

        Raises:
            StoreError: the server cannot be asked.
        """
        for key in keys:
            token, frees = self._given_up.get(key, ("", False))
            if token:
                with self._server.asking():
                    self._land(keys=[self._server.key(f"flight:{key}")], args=[token, int(frees), _FREE_S])
                self._given_up.pop(key, None)


def _end(flights: _Flights, worker: Worker[str]) -> None:
    """End what this process leads, and the thread."""
    for key in list(flights.led):
        if flights.give_up(key, frees=False):
            worker.put(key)
    worker.close()
