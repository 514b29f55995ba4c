"""Budgets on a server: counters by window, and one script for each thing that changes them."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
from redis.commands.core import Script

from leastwise.budget import Account, Claim, Raise, Refusal, Span, Standing
from leastwise.errors import BudgetUnavailableError
from leastwise.ledger import Charge, Entry, Reserved
from leastwise.sqlite import at_fork
from leastwise.steps import Lease
from leastwise.stores import WindowLine
from leastwise.stores.redis.server import SILENT_S, Server, new_owner

_log: Final = logging.getLogger(__name__)

_DAY_S: Final = 24 * 3600
_SETTLED_S: Final = 2 * _DAY_S
_KEPT_S: Final = 62 * _DAY_S  # the longest window, once more
_ALWAYS: Final = "always"
#: Rolling windows have many slices, which are of no use for longer than a settlement may take.
_SLICES_KEPT_S: Final[dict[Span, int]] = {"hour": 3 * _DAY_S, "day": 4 * _DAY_S, "week": 16 * _DAY_S}
#: Lua counts in doubles, which are exact up to here.
_MOST: Final = 2**53 - 1
#: Of an id, which begins with the time: what was settled in the same quarter of an hour is kept together.
_BUCKET: Final = 6
_PAGE: Final = 500
_NONCE: Final = 8  # bytes

# KEYS: the counters, each a hash by account and window; all windows, sorted; when they are forgotten; open
# leases; owners by their last beat; then those of settled ids, one for each id.
_WINDOWS_LUA: Final = r"""
local SPENT, LEASED, CALLS, WINDOWS, ENDS, LEASES, OWNERS = unpack(KEYS, 1, 7)

local function text(number)  -- what Lua writes by itself is rounded
  return string.format('%.0f', number)
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function slices(account, first, key)
  local last = account .. '\0' .. key
  if first == key then
    return {last}
  end
  return redis.call('ZRANGEBYLEX', WINDOWS, '[' .. account .. '\0' .. first, '[' .. last)
end

local function total(counter, windows)
  local sum = 0
  for i = 1, #windows, 1000 do
    local values = redis.call('HMGET', counter, unpack(windows, i, math.min(i + 999, #windows)))
    for _, value in ipairs(values) do
      sum = sum + tonumber(value or 0)
    end
  end
  return sum
end

local function note(account, key, kept_s)  -- and forget a few that ended, where nothing is leased
  local window = account .. '\0' .. key
  if redis.call('ZADD', WINDOWS, 0, window) == 1 and key ~= 'always' then
    local now = now_ms()
    redis.call('ZADD', ENDS, now + kept_s * 1000, window)
    for _, old in ipairs(redis.call('ZRANGEBYSCORE', ENDS, '-inf', now, 'LIMIT', 0, 4)) do
      if redis.call('HEXISTS', LEASED, old) == 0 then
        redis.call('HDEL', SPENT, old)
        redis.call('HDEL', CALLS, old)
        redis.call('ZREM', WINDOWS, old)
        redis.call('ZREM', ENDS, old)
      end
    end
  end
  return window
end
"""

_STANDINGS_LUA: Final = r"""
local found = {}
for i = 1, #ARGV, 3 do
  local windows = slices(ARGV[i], ARGV[i + 1], ARGV[i + 2])
  if #windows > 1 or (#windows == 1 and redis.call('ZSCORE', WINDOWS, windows[1])) then
    found[#found + 1] = {total(SPENT, windows), total(LEASED, windows), total(CALLS, windows)}
  else
    found[#found + 1] = false
  end
end
return found
"""

_LEASE_LUA: Final = r"""
local id, held, owner, worst = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
redis.call('ZADD', OWNERS, now_ms(), owner)
if redis.call('HEXISTS', KEYS[8], id) == 1 or redis.call('HEXISTS', LEASES, id) == 1 then
  return false
end

local names = {}
for i = 5, #ARGV, 5 do
  names[#names + 1] = ARGV[i] .. '\0' .. ARGV[i + 2]
end
local spents = redis.call('HMGET', SPENT, unpack(names))
local leaseds = redis.call('HMGET', LEASED, unpack(names))
for n, name in ipairs(names) do
  local account, first, key, limit = unpack(ARGV, 5 * n, 5 * n + 3)
  local spent, leased = tonumber(spents[n] or 0), tonumber(leaseds[n] or 0)
  if first ~= key then
    local windows = slices(account, first, key)
    spent, leased = total(SPENT, windows), total(LEASED, windows)
  end
  if spent + leased + worst > tonumber(limit) then
    return {n - 1, spent, leased, total(CALLS, slices(account, first, key))}
  end
end
for n, name in ipairs(names) do
  if not spents[n] and not leaseds[n] then
    note(ARGV[5 * n], ARGV[5 * n + 2], ARGV[5 * n + 4])
  end
  if worst ~= '0' then
    redis.call('HINCRBY', LEASED, name, worst)
  end
end
redis.call('HSET', LEASES, id, held)
return false
"""

_SETTLE_LUA: Final = r"""
local kept_s, settled_s = ARGV[1], ARGV[2]

local function charge(json, sign)
  for _, part in ipairs(cjson.decode(json)) do
    local window = part.budget_id .. '\0' .. part.window_key
    if part.nusd > 0 and (sign > 0 or redis.call('HEXISTS', SPENT, window) == 1) then
      if redis.call('HINCRBY', SPENT, window, text(sign * part.nusd)) == part.nusd then
        note(part.budget_id, part.window_key, kept_s)
      end
      redis.call('HINCRBY', CALLS, window, sign)
    end
  end
end

local function release(id)
  local held = redis.call('HGET', LEASES, id)
  for _, part in ipairs(held and cjson.decode(held).charges or {}) do
    local window = part.budget_id .. '\0' .. part.window_key
    if part.nusd > 0 and redis.call('HINCRBY', LEASED, window, text(-part.nusd)) == 0 then
      redis.call('HDEL', LEASED, window)
    end
  end
  redis.call('HDEL', LEASES, id)
end

for i = 8, #KEYS do
  local id, is_lost, charges = unpack(ARGV, 3 * (i - 8) + 3, 3 * (i - 8) + 5)
  local lost = redis.call('HGET', KEYS[i], id)  -- what a lost one was charged; '' for what is known
  if not lost or (lost ~= '' and is_lost == '0') then
    release(id)
    if lost then
      charge(lost, -1)
    end
    charge(charges, 1)
    redis.call('HSET', KEYS[i], id, is_lost == '1' and charges or '')
    redis.call('EXPIRE', KEYS[i], settled_s)
  end
end
"""

_DEAD_LUA: Final = r"""
local silent, holding, found = {}, {}, {}
local owners = redis.call('ZRANGEBYSCORE', OWNERS, '-inf', '(' .. text(now_ms() - ARGV[1]))
if #owners == 0 then
  return found
end
for _, owner in ipairs(owners) do
  silent[owner] = owner ~= ARGV[2]
end
for _, held in ipairs(redis.call('HVALS', LEASES)) do
  local owner = cjson.decode(held).owner
  if silent[owner] then
    holding[owner] = true
    found[#found + 1] = held
  end
end
for _, owner in ipairs(owners) do
  if silent[owner] and not holding[owner] then
    redis.call('ZREM', OWNERS, owner)
  end
end
return found
"""

_BEAT_LUA: Final = "redis.call('ZADD', OWNERS, now_ms(), ARGV[1])"
_CORRECT_LUA: Final = "redis.call('HINCRBY', SPENT, note(ARGV[1], ARGV[2], ARGV[3]), ARGV[4])"

_COUNTERS: Final = ("spent", "leased", "calls")
_BUDGET_KEYS: Final = (*_COUNTERS, "windows", "ends", "leases", "owners")

_reserved: Final = msgspec.json.Decoder(Reserved)
_raise: Final = msgspec.json.Decoder(Raise)


class RedisBudgets:
    """A `BudgetStore` on a Redis or Valkey server.

    Args:
        url: Where; see the text of the package.
        silent_s: An owner that has not been heard of for so long is dead.

    Raises:
        StoreError: the server cannot be reached or used; names host and port.
    """

    is_near = False

    def __init__(self, url: str, *, silent_s: float = SILENT_S) -> None:
        self._server = server = Server(url, BudgetUnavailableError)
        if server.may_lose_keys:
            _log.warning(
                "%s throws keys away when it is full: budgets may forget what was spent. Set its "
                "maxmemory-policy to noeviction",
                server.where,
            )
        self._silent_ms = int(silent_s * 1000)
        self._keys = [server.key(name) for name in _BUDGET_KEYS]
        scripts = (_STANDINGS_LUA, _LEASE_LUA, _SETTLE_LUA, _DEAD_LUA, _BEAT_LUA, _CORRECT_LUA)
        self._standings, self._lease, self._settle, self._dead, self._beat, self._correct = (
            server.client.register_script(_WINDOWS_LUA + script) for script in scripts
        )
        self._begin()
        at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._owner = new_owner()

    def _run(self, script: Script, args: Iterable[str | bytes | int], ids: Iterable[str] = ()) -> Any:
        with self._server.asking():
            settled = [self._server.key(f"settled:{id_[:_BUCKET]}") for id_ in ids]
            return script(keys=[*self._keys, *settled], args=list(args))

    def standings(self, accounts: Sequence[Account]) -> dict[str, Standing]:
        """Return how the windows of these accounts stand, by account; without those nothing is known of."""
        if not accounts:
            return {}
        asked = (word for one in accounts for word in (one.id, one.window.first, one.window.key))
        found = self._run(self._standings, asked)
        pairs = zip(accounts, found, strict=True)
        return {account.id: Standing(*sums) for account, sums in pairs if sums is not None}

    def lease(self, lease: Lease, *, may_wait: bool) -> Refusal | None:  # noqa: ARG002 - never busy
        """Reserve in every claim's account, or in none and say why.

        Raises:
            BudgetUnavailableError: the server cannot be asked. Whether it granted the lease is not
                known then: settle it.
        """
        if not lease.claims:
            return None
        claims = sorted(lease.claims, key=lambda claim: claim.account.id)
        worst_nusd = lease.reserved.worst_nusd
        windows = ((claim.account.id, claim.account.window.key) for claim in claims)
        held = replace(
            lease.reserved,
            charges=tuple(Charge(*window, worst_nusd) for window in windows),
            owner=self._owner,
        )
        with self._server.asking():
            told: list[str | bytes | int] = [held.id, msgspec.json.encode(held), self._owner, worst_nusd]
        for claim in claims:
            window = claim.account.window
            told += (claim.account.id, window.first, window.key, min(claim.limit_nusd, _MOST), _kept_s(claim))
        refused = self._run(self._lease, told, [held.id])
        return Refusal(claims[refused[0]], Standing(*refused[1:])) if refused else None

    def settle(self, *entries: Entry) -> None:
        """Close these leases and charge what the entries cost; twice is as good as once.

        Raises:
            BudgetUnavailableError: the server cannot be asked; settle again.
        """
        for at in range(0, len(entries), _PAGE):
            page = entries[at : at + _PAGE]
            told: list[str | bytes | int] = [_KEPT_S, _SETTLED_S]
            with self._server.asking():
                for entry in page:
                    _check(entry.charges)
                    told += (entry.id, int(entry.certainty == "lost"), msgspec.json.encode(entry.charges))
            self._run(self._settle, told, [entry.id for entry in page])

    def reserved(self) -> list[Reserved]:
        """Return every lease that is open, with its owner, oldest first."""
        with self._server.asking():
            found: Any = self._server.client.hvals(self._server.key("leases"))
        return _by_time(found)

    def beat(self) -> None:
        """Say that this process lives."""
        self._run(self._beat, [self._owner])

    def dead(self) -> list[Reserved]:
        """Return the leases of other owners that have been silent for too long, by the server's clock."""
        return _by_time(self._run(self._dead, [self._silent_ms, self._owner]))

    def windows(self, *, since: str = "") -> list[WindowLine]:
        """Return every account's windows with that key or a later one, by account and time."""
        client, lines, after = self._server.client, list[WindowLine](), b"-"
        with self._server.asking():
            while True:
                names: Any = client.zrangebylex(self._server.key("windows"), after, b"+", start=0, num=_PAGE)
                if not names:
                    return lines
                after = b"(" + names[-1]
                names = [name for name in names if name.decode().partition("\0")[2] >= since]
                if not names:
                    continue
                pipe = self._server.pipeline(is_atomic=True)
                for counter in _COUNTERS:
                    pipe.hmget(self._server.key(counter), names)
                for name, *sums in zip(names, *pipe.execute(), strict=True):
                    account, _, key = name.decode().partition("\0")
                    lines.append(WindowLine(account, key, Standing(*(int(one or 0) for one in sums))))

    def correct(self, account: str, window_key: str, by_nusd: int) -> None:
        """Add to what a window's account has spent; below zero to take away."""
        self._run(self._correct, [account, window_key, _KEPT_S, by_nusd])

    def first_to(self, account: str, window_key: str, what: str) -> bool:
        """Tell whether nobody said `what` of that window before: then the caller is to say it."""
        name = self._server.key(f"said:{account}\0{window_key}\0{what}")
        mine = secrets.token_bytes(_NONCE)
        ends_s = None if window_key == _ALWAYS else _KEPT_S
        with self._server.asking():
            _, said = self._server.pipeline().set(name, mine, nx=True, ex=ends_s).get(name).execute()
        return bool(said == mine)

    def add_raise(self, raised: Raise) -> None:
        """Give a budget more money until a time."""
        with self._server.asking():
            one = secrets.token_bytes(_NONCE) + msgspec.json.encode(raised)  # the same may be given twice
            self._server.client.zadd(self._server.key("raises"), {one: raised.at})

    def raises(self) -> list[Raise]:
        """Return all that was ever given, oldest first."""
        with self._server.asking():
            found: Any = self._server.client.zrange(self._server.key("raises"), 0, -1)
        return [_raise.decode(one[_NONCE:]) for one in found]

    def close(self) -> None:
        """Close the connections; using the store again reopens them."""
        self._server.close()


def _kept_s(claim: Claim) -> int:
    return _SLICES_KEPT_S.get(claim.rule.window, _KEPT_S) if claim.rule.rolling else _KEPT_S


def _check(charges: Iterable[Charge]) -> None:
    """Refuse what a counter could not take; half of a script would have been done by then."""
    for charge in charges:
        if not 0 <= charge.nusd <= _MOST:
            message = f"{charge.nusd} nano-dollars"
            raise OverflowError(message)


def _by_time(found: Iterable[bytes]) -> list[Reserved]:
    return sorted(map(_reserved.decode, found), key=lambda one: (one.at, one.id))
