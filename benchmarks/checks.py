"""What checking costs: the free checks by themselves, and a cascade beside the same calls one by one.

The upstream is a function that returns ready answers, or the simulator in this process: what is left is
ours. A cascade's calls are an answer, a judgement and perhaps a dearer answer; the same calls one by one
are as many plain exchanges, each with its own decision, lease, entry and row.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.measure import Figure, Quiet, Result, Subject, Table, Timing, side_by_side
from leastwise import client
from leastwise.build import Runtime
from leastwise.cascade import BUILT_IN
from leastwise.config import load
from leastwise.exchange import exchange
from leastwise.ladder import Task
from leastwise.messages import Facts, Reply, Request
from leastwise.simulate import MARK, Ask, Simulator
from leastwise.steps import Send
from leastwise.stores.sqlite import SqliteStore

_CHECKS_US, _CASCADE_US = 50.0, 300.0
_CALLS: Final = 200
_KB: Final = 1024
_GATES: Final = ("truncation", "empty", "refusal", "schema", "tools")
_HEADERS: Final = {"x-api-key": "none", "anthropic-version": "2026-10-21"}
_ASK: Final = "Say in some fifty lines what a warehouse has to think of before the first snow falls. "
_SCHEMA: Final = {
    "type": "object",
    "properties": {"lines": {"type": "array", "items": {"type": "string"}}},
    "required": ["lines"],
    "additionalProperties": False,
}
_TOOL: Final = {"name": "note", "input_schema": _SCHEMA}

Upstream = Callable[[Send], Reply]


def measure(turns: int, quiet: Quiet) -> Result:
    """Return what checks cost, and what a cascade adds to its calls."""
    alone = side_by_side([*_alone()], turns=turns, quiet=quiet)
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder, ExitStack() as stack:
        ways = [_Way(name, make, Path(folder, name), stack) for name, make in _UPSTREAMS.items()]
        found = side_by_side([one for way in ways for one in way.subjects()], turns=turns, quiet=quiet)
    added = {f"{row}, {way.name}": way.added(row, found) for way in ways for row in _CALLS_OF}
    slowest = max(one.p50 for one in alone.values())
    return Result(
        name="checks",
        title="Checking answers: the free checks, and a cascade beside the same calls one by one",
        method=(
            f"The free checks are {', '.join(_GATES)}, asked in turn of one answer of 1 KB.",
            (
                "Each exchange goes through `client.run` with a ledger in a SQLite file of its own; a "
                f"request of {len(_body('haiku'))} bytes, parsed anew for each call, outside the timing. "
                "Haiku is asked by name, sonnet judges, and what is rejected goes to opus."
            ),
            (
                "*Added* is the median of a checked exchange less the medians of plain exchanges that make "
                "the same calls to the same upstream, the judge's own question among them. Not by means: the "
                "difference of four of them is mostly that of their checkpoints and collections."
            ),
        ),
        tables=(
            _table("The free checks alone", alone, {}),
            _table("A cascade, beside its calls", found, added),
        ),
        figures=(
            Figure("free checks on an answer of 1 KB, the slowest, p50", _CHECKS_US, slowest, "us"),
            *(Figure(f"{row}: added to its calls, p50", _CASCADE_US, added[row], "us") for row in added),
        ),
        reading=tuple(_reading(alone, added)),
        packages=("msgspec", "jsonschema-rs"),
        facts=quiet.facts(),
    )


# --- the free checks alone -----------------------------------------------------------------------------


def _alone() -> Iterator[Subject]:
    """Yield the free checks on a text, on structured output and on a tool call, of 1 KB each."""
    lines = {"lines": [f"{number}. Salt for the ramp is where it can be reached." for number in range(19)]}
    kinds: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "a text": ({}, {"type": "text", "text": ("It depends on the roof and on the road. " * 26)[:_KB]}),
        "structured output": (
            {"output_config": {"format": {"type": "json_schema", "schema": _SCHEMA}}},
            {"type": "text", "text": msgspec.json.encode(lines).decode()},
        ),
        "a tool call": ({"tools": [_TOOL]}, {"type": "tool_use", "id": "t", "name": "note", "input": lines}),
    }
    for name, (members, block) in kinds.items():
        request = Request.parse(_body("haiku", **members))
        message = _message("claude-haiku-5-5", block)
        reply = Reply(message, Facts.read(message), message=message)
        size = f"{len(msgspec.json.encode(block)):,} bytes"
        yield Subject(f"{name} of {size}", partial(_ask_all, request, reply), calls=2_000)


def _ask_all(request: Request, reply: Reply, _: None) -> None:
    for name in _GATES:
        BUILT_IN[name].ask(request, reply)


# --- a cascade -----------------------------------------------------------------------------------------

_FREELY: Final = Task(check=_GATES)
_JUDGED: Final = Task(check="judge", escalate_to="opus", threshold=3)
_FREE, _ACCEPTED, _REJECTED = "free checks", "judged, accepted", "judged, answered again"
#: A checked exchange -> the calls that it makes, by whom.
_CALLS_OF: Final = {
    _FREE: ("haiku",),
    _ACCEPTED: ("haiku", "judge"),
    _REJECTED: ("haiku", "judge", "opus"),
}


@dataclass
class _Way:
    """One upstream, with a ledger of its own for each kind of exchange on it.

    A rejected answer would teach the ledger; so that all calls of a kind are alike, each has its own.
    """

    name: str
    make: Callable[[int], Upstream]
    folder: Path
    stack: ExitStack

    def subjects(self) -> Iterator[Subject]:
        """Yield the plain exchanges and the checked ones."""
        self.folder.mkdir()
        plain = self._through(Task(), self.make(5))
        asks = {"haiku": _body("haiku"), "judge": self._question(), "opus": _body("opus")}
        for call, body in asks.items():
            yield Subject(self._named(call), plain, partial(Request.parse, body), _CALLS)
        for row, score in ((_FREE, 5), (_ACCEPTED, 5), (_REJECTED, 1)):
            checked = self._through(_FREELY if row == _FREE else _JUDGED, self.make(score))
            yield Subject(f"{row}, {self.name}", checked, partial(Request.parse, asks["haiku"]), _CALLS)

    def _question(self) -> bytes:
        """Return what a judge is asked, as a request of its own."""
        answer, asked = self.make(5), list[Request]()

        def noting(step: Send) -> Reply:
            asked.append(step.request)
            return answer(step)

        self._through(_JUDGED, noting)(Request.parse(_body("haiku")))
        return asked[-1].replace(model="sonnet").body()

    def added(self, row: str, found: Mapping[str, Timing]) -> float:
        """Return what a checked exchange takes over plain ones for the same calls, in microseconds."""
        return found[f"{row}, {self.name}"].p50 - sum(found[self._named(call)].p50 for call in _CALLS_OF[row])

    def _named(self, call: str) -> str:
        who = "the judge's question to sonnet" if call == "judge" else call
        return f"plain: {who}, {self.name}"

    def _through(self, task: Task, upstream: Upstream) -> Callable[[Request], object]:
        folder = str(self.folder)
        settings = load(
            environ={"XDG_CONFIG_HOME": folder, "XDG_STATE_HOME": folder},
            cwd=self.folder,
            arguments={"cascade.judge": "sonnet", "cascade.controls": 0.0},
        )
        file = self.folder / f"{len([*self.folder.iterdir()])}.db"
        runtime = self.stack.enter_context(Runtime(settings, store=SqliteStore(file)))

        def call(request: Request) -> object:
            entering = runtime.call(request, task, max_retries=0)
            return client.run(exchange(entering, runtime.terms), upstream, runtime.desk)

        return call


def _body(model: str, **members: Any) -> bytes:
    turn = {"role": "user", "content": _ASK * 5}
    return msgspec.json.encode({"model": model, "max_tokens": 4096, "messages": [turn], **members})


def _message(model: str, block: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": "msg_ready",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [block],
        "stop_reason": "tool_use" if block["type"] == "tool_use" else "end_turn",
        "usage": {"input_tokens": 190, "output_tokens": 250},
    }


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _function(score: int) -> Upstream:
    """Return a function that answers at once, and gives that score."""
    text = _text(("It depends on the roof and on the road. " * 26)[:_KB])
    ready = {model: _reply(_message(model, text)) for model in ("claude-haiku-5-5", "claude-opus-5-5")}
    said = {"fault": "none", "score": score}
    ready["claude-sonnet-5-5"] = _reply(
        _message("claude-sonnet-5-5", _text(msgspec.json.encode(said).decode()))
    )
    return lambda step: ready[step.request.model]


def _simulated(score: int) -> Upstream:
    """Return a simulator, whose judge takes what does not say that it is simulated for wrong."""
    mark = f"{MARK} " if score > 1 else ""

    def say(ask: Ask) -> str | None:
        return None if "output_config" in ask.body else f"{mark}{'It depends. ' * 85}"

    simulator = Simulator(answers=say, keep=10)

    def answer(step: Send) -> Reply:
        response = simulator.handle("POST", step.request.endpoint, _HEADERS, step.request.body())
        message = msgspec.json.decode(response.read())
        return replace(_reply(message), request_id=response.headers["request-id"])

    return answer


def _reply(message: dict[str, Any]) -> Reply:
    return Reply(message, Facts.read(message), request_id="req_ready", read=lambda: message)


_UPSTREAMS: Final = {"function": _function, "simulator": _simulated}


# --- what came out -------------------------------------------------------------------------------------


def _table(title: str, found: Mapping[str, Timing], added: Mapping[str, float]) -> Table:
    rows = tuple(
        (
            name,
            *(f"{us:.1f}" for us in (t.mean, t.p50, t.p95, t.p99, t.worst_p50)),
            *([f"{added[name]:.1f}" if name in added else "-"] if added else []),
            f"{t.turns} x {t.calls:,}",
        )
        for name, t in found.items()
    )
    last = ("added", "turns x calls") if added else ("turns x calls",)
    return Table(title, ("us per call", "mean", "p50", "p95", "p99", "p50, worst turn", *last), rows)


def _reading(alone: Mapping[str, Timing], added: Mapping[str, float]) -> Iterator[str]:
    cheapest, dearest = (pick(one.p50 for one in alone.values()) for pick in (min, max))
    yield f"The free checks take {cheapest:.0f} to {dearest:.0f} us for an answer of 1 KB."
    free, accepted, rejected = (f"{added[f'{row}, function']:.0f} us" for row in _CALLS_OF)
    yield (
        f"An exchange takes {free} more with free checks: they themselves, what is known of the tier's "
        f"checks looked up, what they said written down. With a judge it takes {accepted} more than its two "
        f"calls one by one, and answered again {rejected} more than its three."
    )
    yield "Not in here: the calls' own time, which for a judge is a second or so, and what they cost."
