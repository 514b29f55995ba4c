"""`leastwise simulate`: a Messages API on this machine that costs nothing and says that it is simulated."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter, validators

from leastwise.cli.console import say, say_next
from leastwise.errors import ConfigError
from leastwise.simulate import Simulator, run

Port = Annotated[int, Parameter(help="Port to listen at.", validator=validators.Number(gte=1, lte=65_535))]
Host = Annotated[str, Parameter(help="Address to listen at.")]
ErrorRate = Annotated[
    tuple[str, ...],
    Parameter(
        name="--error-rate",
        negative=(),
        consume_multiple=True,
        help="Share of wrong answers of a line or model, such as haiku=0.1; may be repeated.",
    ),
]

_KEPT = 1_000  # requests remembered: a server that runs for days must not grow


def simulate(*, port: Port = 8377, host: Host = "127.0.0.1", error_rate: ErrorRate = ()) -> None:
    """Serve a simulated Messages API until interrupted.

    Answers are scripted and say so; prices, limits and errors are those of the real one.
    """
    rates = dict(_rate(text) for text in error_rate)
    try:
        run(host, port, Simulator(error_rate=rates, keep=_KEPT), on_ready=_say_ready)
    except OSError as error:
        message = f"cannot listen at {host} port {port}: {error.strerror}. Choose another with --port"
        raise ConfigError(message) from error


def _say_ready(url: str) -> None:
    sys.stdout.write(f"export ANTHROPIC_BASE_URL={url}\nexport ANTHROPIC_API_KEY=simulated\n")
    sys.stdout.flush()
    say("SIMULATED Messages API; set these two variables where your program runs. Ctrl-C ends it.")
    say_next("leastwise route --send 'Is this spam? Win $1000 now!!!'")


def _rate(text: str) -> tuple[str, float]:
    name, _, share = text.partition("=")
    try:
        rate = float(share)
    except ValueError:
        rate = -1.0
    if not name or not 0 <= rate <= 1:
        message = f"--error-rate {text!r}: expected a line or model and a share, such as haiku=0.1"
        raise ConfigError(message)
    return name, rate
