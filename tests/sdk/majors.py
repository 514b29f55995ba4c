"""What the majors of the `anthropic` SDK differ in, as far as their common tests need to know."""

from __future__ import annotations

import importlib
from typing import Any, Final

import anthropic

MAJOR: Final = int(anthropic.__version__.partition(".")[0])

#: The HTTP library below the SDK: `httpx` for 0.x, `httpx2` since 1.0.
http: Any = importlib.import_module("httpx2" if MAJOR else "httpx")
