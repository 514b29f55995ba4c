"""Budgets and kept answers on a Redis or Valkey server, shared by the processes of many hosts.

Everything of one namespace lies under one hash tag, `{leastwise:NAME}:`, and so on one shard of a
cluster: a lease is decided over all of its accounts by one Lua script, which nothing interrupts.

What this guarantees, and what not. Scripts run one after another, so `spent + leased <= limit` holds
exactly, whoever asks, for as long as the server keeps what it acknowledged. A fail-over to a replica, or
a restart with less than `appendfsync always`, loses what was acknowledged last. A restart without
persistence loses all: budgets begin at nothing, until they are set to what the ledger's charges add up to.
A server whose `maxmemory-policy` is one of `allkeys-*` may throw counters away; that is said at the start.

A server that is gone is found out in a fraction of a second, and used again as soon as it is back; one that
does not answer in time is left alone for as long again. Only a
connection that turns out to have been closed is made anew and asked once more, which every command here
allows for.

A URL: `redis://[USER:PASSWORD@]HOST:PORT[/DB][?namespace=NAME]`, `rediss://` for TLS, or
`unix://PATH[?namespace=NAME]`. Settings of redis-py, such as `socket_timeout=1`, may follow the same way.
"""

from leastwise.stores.redis.answers import RedisCache
from leastwise.stores.redis.budgets import RedisBudgets

__all__ = ["RedisBudgets", "RedisCache"]
