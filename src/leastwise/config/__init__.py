"""The configuration: one frozen value with the origin of each of its settings.

Arguments win over `LEASTWISE_*`, those over the file, the file over defaults; without a
file everything works. Files are looked for in this order, and an explicit one is the only one:

1. an explicit path, or `LEASTWISE_CONFIG`;
2. `leastwise.toml` of the user's config directory, `$XDG_CONFIG_HOME/leastwise`;
3. `leastwise.toml` of the working directory, over the user's. Anybody may have put it
   there, so it may set policy only: no upstream, which would be sent the key, and no store. Its
   budgets come on top of the user's: none is lifted by changing the folder.

Every setting is checked where it is read, and all that is wrong is told at once: where, which
key, which value, what is allowed. A key that is not known is an error, because a typing error
in a money setting must not pass for a default. Secrets are not settings: an upstream names
the environment variable that holds its key.

Nothing here edits a file, opens a store or asks an upstream.
"""

from leastwise.config.layers import CONFIG_VARIABLE, FILE_NAME, load, misspelt, user_file
from leastwise.config.reading import SCHEMA, read_budget
from leastwise.config.values import (
    DEFAULT,
    MEMORY,
    CacheOptions,
    CascadeOptions,
    ClassifierOptions,
    Config,
    LimitOptions,
    NotifyOptions,
    Setting,
    StoreAt,
    Upstream,
    file_of,
    limits,
    policy,
    price_book,
    settings,
    shown_place,
)
from leastwise.config.words import host_only, masked

__all__ = [
    "CONFIG_VARIABLE",
    "DEFAULT",
    "FILE_NAME",
    "MEMORY",
    "SCHEMA",
    "CacheOptions",
    "CascadeOptions",
    "ClassifierOptions",
    "Config",
    "LimitOptions",
    "NotifyOptions",
    "Setting",
    "StoreAt",
    "Upstream",
    "file_of",
    "host_only",
    "limits",
    "load",
    "masked",
    "misspelt",
    "policy",
    "price_book",
    "read_budget",
    "settings",
    "shown_place",
    "user_file",
]
