"""Putting a configured Leastwise together; the one package that knows every implementation."""

from leastwise.build.answers import Word, word_on
from leastwise.build.plans import Plans, imported
from leastwise.build.runtime import OWN_UPSTREAM, Runtime, observed
from leastwise.build.stores import existing_cache, existing_store, open_cache, open_store
from leastwise.build.trials import end_trial

__all__ = [
    "OWN_UPSTREAM",
    "Plans",
    "Runtime",
    "Word",
    "end_trial",
    "existing_cache",
    "existing_store",
    "imported",
    "observed",
    "open_cache",
    "open_store",
    "word_on",
]
