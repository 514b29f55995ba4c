"""The drop-in client for the `anthropic` SDK (an extra: `pip install "leastwise[anthropic]"`).

What runs is in `dropin`; here are its names, and the types that checkers see.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leastwise.sdk.typed import Anthropic, AsyncAnthropic
else:
    from leastwise.sdk.dropin import Anthropic, AsyncAnthropic

from leastwise.sdk.dropin import outcome, wrap
from leastwise.sdk.recording import record

__all__ = ["Anthropic", "AsyncAnthropic", "outcome", "record", "wrap"]
