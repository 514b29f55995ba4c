"""A simulated upstream: the Messages API over HTTP and in this process, without a key or a cost.

It speaks the real wire format and is as strict as the real API, so that what passes
here passes there; what it says is scripted, and says so.

>>> simulator = Simulator()
>>> body = (
...     b'{"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "Spam?"}]}'
... )
>>> headers = {"x-api-key": "any", "anthropic-version": "2026-10-21"}
>>> simulator.handle("POST", "/v1/messages", headers, body).status
200
"""

from leastwise.simulate.answers import MARK, Answer
from leastwise.simulate.api import Seen, Simulator
from leastwise.simulate.books import Charge
from leastwise.simulate.response import Response
from leastwise.simulate.rules import Ask
from leastwise.simulate.server import Server, app, run, serve

__all__ = [
    "MARK",
    "Answer",
    "Ask",
    "Charge",
    "Response",
    "Seen",
    "Server",
    "Simulator",
    "app",
    "run",
    "serve",
]
