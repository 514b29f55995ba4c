"""Putting a configured Leastwise together; the one package that knows every implementation."""

from leastwise.build.runtime import OWN_UPSTREAM, Runtime, observed
from leastwise.build.stores import existing_cache, existing_store, open_cache, open_store

__all__ = [
    "OWN_UPSTREAM",
    "Runtime",
    "existing_cache",
    "existing_store",
    "observed",
    "open_cache",
    "open_store",
]
