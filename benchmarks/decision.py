"""What one routing decision costs, beside two routers that others publish.

Ours is `features.read` and `Router.decide` on a request as it came over the wire, parsed
and decoded anew for each call; decoding is a row of its own. Each size has an ask whose
type a phrase tells, and one that the learned classifier weighs; 1 KB also has one with a
letter that is not ASCII, which takes Python's slower way. The slowest is held to the figure.

aurelio semantic-router compares an embedding of the ask with those of examples: 10 routes
of 10 utterances, its own index in memory, and a stand-in for the encoder that counts
hashed words, because a real one is a network call or a model. RouteLLM's matrix
factorisation ("mf") has random weights of the published shape, and its embedding, a
network call, is left out. Both are therefore flattered; neither reads a request body.
"""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from benchmarks.measure import Figure, Quiet, Result, Subject, Table, Timing, clock_us, say, side_by_side
from leastwise import features
from leastwise.build import Runtime
from leastwise.config import load
from leastwise.ladder import Task
from leastwise.messages import Request
from leastwise.stores.sqlite import SqliteStore

_PHRASE, _WEIGHED, _FOREIGN = "type told by a phrase", "weighed by the classifier", "weighed, not all ASCII"
_SIZES: Final = (245, 1_000, 20_000)
_KINDS: Final = {245: (_PHRASE, _WEIGHED), 1_000: (_PHRASE, _WEIGHED, _FOREIGN), 20_000: (_PHRASE, _WEIGHED)}
_LIMITS_US: Final = {1_000: 90.0, 20_000: 110.0}
_MOST_SPREAD: Final = 4.0  # p99 over p50
_NAMES: Final = {245: "245 B", 1_000: "1 KB", 20_000: "20 KB"}

_SHORT: Final = {
    _PHRASE: "Is this spam? Congratulations, you were drawn as the winner of a new phone. Reply",
    _WEIGHED: "My sister moves to the coast in spring and her old dog hates long drives. Ideas",
}
_MIDDLE: Final = {
    _PHRASE: "Summarise the following notes for somebody who missed the meeting. ",
    _WEIGHED: "Here is where we stand after the meeting, and I wonder what you make of it. ",
    _FOREIGN: "Here is where we stand after the meeting in Zürich, and I wonder what you make of it. ",
}
_LONG: Final = {
    _PHRASE: "Refactor the rounding so that there is one place for it.",
    _WEIGHED: "It still comes out a cent too low on the second line. Have another look.",
}
_PROSE: Final = (
    "The supplier in Zurich delivers on Thursdays, and twice in March nobody was there to sign. ",
    "Invoices above a thousand francs go to Irene first; she answers within the day. ",
    "We agreed that the old price list stays valid until the stock of blue boxes is gone. ",
    "The lift has been out since Monday, so pallets wait in the yard, covered when it rains. ",
    "Two customers asked for longer opening hours, one for parking, none for a new web shop. ",
    "Whoever takes the last parcel of the evening switches off the light over the ramp. ",
)
_TOOLS: Final = ("read_file", "write_file", "list_folder", "search", "run_command", "ask_user")


def measure(turns: int, quiet: Quiet) -> Result:
    """Return what a decision costs, ours and theirs."""
    subjects = [*_ours(), *_semantic_router(), *_routellm()]
    found = side_by_side(subjects, turns=turns, quiet=quiet)
    return Result(
        name="decision",
        title="One routing decision",
        method=_method(),
        tables=(_table(found), _ratios(found)),
        figures=tuple(_figures(found)),
        reading=tuple(_reading(found)),
        packages=("msgspec", "semantic-router", "routellm", "torch", "numpy"),
        facts=quiet.facts(),
    )


def _figures(found: dict[str, Timing]) -> Iterator[Figure]:
    for size, limit in _LIMITS_US.items():
        timing = _slower(found, size)
        yield Figure(f"decision on {_NAMES[size]}, the slower ask, p50", limit, timing.p50, "us")
        spread = timing.p99 / timing.p50
        yield Figure(f"decision on {_NAMES[size]}, the slower ask, p99 over p50", _MOST_SPREAD, spread, "")


# --- ours ----------------------------------------------------------------------------------------------


def _ours() -> Iterator[Subject]:
    with tempfile.TemporaryDirectory() as folder:
        config = load(environ={"XDG_CONFIG_HOME": folder, "XDG_STATE_HOME": folder}, cwd=Path(folder))
        router = Runtime(config, store=SqliteStore(":memory:")).router
    task = Task()

    def decide(request: Request) -> object:
        return router.decide(request, task, features=features.read(request, task))

    for size in _SIZES:
        for kind in _KINDS[size]:
            body = _body(size, kind)
            decision = router.decide(Request.parse(body))
            assert len(body) == size
            assert ('"' in decision.reason) is (kind == _PHRASE), decision.reason
            yield Subject(_ours_name(size, kind), decide, _decoder(body))
        yield Subject(_decode_name(size), _decode, _giver(_body(size, _WEIGHED)))


def _decode(body: bytes) -> Request:
    """Return a request of which all that a decision reads is decoded."""
    request = Request.parse(body)
    for name in ("system", "tools", "metadata"):  # `model` and `messages` are decoded in parsing
        request.get(name)
    return request


def _decoder(body: bytes) -> Callable[[], Request]:
    return lambda: _decode(body)


def _giver(body: bytes) -> Callable[[], bytes]:
    return lambda: body


def _decode_name(size: int) -> str:
    return f"parse and decode, {_NAMES[size]}"


def _ours_name(size: int, kind: str) -> str:
    return f"leastwise, {_NAMES[size]}, {kind}"


def _body(size: int, kind: str) -> bytes:
    """Return a request of exactly `size` bytes, in the form of its size."""
    make = {245: _short, 1_000: _middle, 20_000: _long}[size]
    padding = size - len(_encode(make(kind, "")))
    while True:
        body = _encode(make(kind, _prose(padding)))
        if len(body) == size:
            return body
        padding += size - len(body)  # what is not ASCII, or is escaped, takes more bytes than characters


def _prose(length: int) -> str:
    text = "".join(_PROSE) * (length // 100 + 1)
    return text[:length]


def _encode(request: dict[str, Any]) -> bytes:
    return json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode()


def _short(kind: str, padding: str) -> dict[str, Any]:
    turn = {"role": "user", "content": f"{_SHORT[kind]} {padding}"}
    return {"model": "auto", "max_tokens": 1024, "messages": [turn]}


def _middle(kind: str, padding: str) -> dict[str, Any]:
    turn = {"role": "user", "content": _MIDDLE[kind] + padding}
    system = "You help a small wholesaler. Answer in plain words."
    return {"model": "auto", "max_tokens": 1024, "system": system, "messages": [turn]}


def _long(kind: str, padding: str) -> dict[str, Any]:
    """Return a coding agent's request: system prompt, tools, six turns of tool use, a short ask."""
    half = len(padding) // 2
    user = {"device_id": "d0", "session_id": "b9c1"}
    return {
        "model": "auto",
        "max_tokens": 8192,
        "stream": True,
        "system": [
            {"type": "text", "text": "You are an assistant that edits a small shop's programs."},
            {"type": "text", "text": padding[:half], "cache_control": {"type": "ephemeral"}},
        ],
        "tools": [_tool(name) for name in _TOOLS],
        "messages": [
            {"role": "user", "content": "The total of an invoice is off by a cent. Find out why."},
            *(turn for number in range(6) for turn in _tool_use(number, padding[half:])),
            {"role": "assistant", "content": [{"type": "text", "text": "Rounding per line is the cause."}]},
            {"role": "user", "content": [_reminder(), {"type": "text", "text": _LONG[kind]}]},
        ],
        "metadata": {"user_id": json.dumps(user)},
    }


def _tool(name: str) -> dict[str, Any]:
    text = {"type": "string", "description": "A path below the project's folder, or a pattern."}
    schema = {"type": "object", "properties": {"path": text, "text": text}, "required": ["path"]}
    return {"name": name, "description": " ".join(_PROSE[1:4]), "input_schema": schema}


def _tool_use(number: int, text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    id_ = f"toolu_{number:024d}"
    part = len(text) // 6
    shown = text[number * part : (number + 1) * part if number < 5 else None]
    use = {"type": "tool_use", "id": id_, "name": "read_file", "input": {"path": f"shop/part{number}.py"}}
    result = {"type": "tool_result", "tool_use_id": id_, "content": [{"type": "text", "text": shown}]}
    said = {"type": "text", "text": f"I look at part {number}."}
    return {"role": "assistant", "content": [said, use]}, {"role": "user", "content": [result]}


def _reminder() -> dict[str, str]:
    text = f"<system-reminder>\n{_PROSE[0]}{_PROSE[3]}\n</system-reminder>"
    return {"type": "text", "text": text}


# --- theirs --------------------------------------------------------------------------------------------

_ENCODER: Final = "semantic-router: its stand-in encoder alone"
_ASYNC: Final = "semantic-router, async"
_SYNC: Final = "semantic-router, sync"
_MF: Final = "RouteLLM mf head, embedding left out"
#: What the head took on the machine and day on which the figures were promised.
_MF_WHEN_SET_US: Final = 298.0


def _semantic_router() -> Iterator[Subject]:
    """Yield aurelio semantic-router, asked with the text of our 1 KB request."""
    try:
        package, numpy = import_module("semantic_router"), import_module("numpy")
        encoders = import_module("semantic_router.encoders")
    except ImportError as error:
        say(f"benchmarks: semantic-router is left out: {error}")
        return
    encode = _hashed_words(numpy)

    async def encode_async(_: Any, texts: list[str]) -> list[list[float]]:
        return encode(texts)

    members = {
        "__annotations__": {"name": str},
        "__module__": __name__,
        "name": "hashed words",
        "__call__": lambda _, texts: encode(texts),
        "acall": encode_async,
    }
    encoder = type("HashedWords", (encoders.DenseEncoder,), members)
    routes = [
        package.Route(name=f"route {r}", utterances=[f"{_PROSE[(r + u) % 6]} {r} {u}" for u in range(10)])
        for r in range(10)
    ]
    ask = _middle_ask()
    blocking = package.IndexedRouter(encoder=encoder(), routes=routes)
    on_loop = package.IndexedRouter(encoder=encoder(), routes=routes)
    yield Subject(_ASYNC, lambda _: on_loop.acall(ask), calls=60, is_async=True)
    yield Subject(_SYNC, lambda _: blocking(ask), calls=60)
    yield Subject(_ENCODER, lambda _: encode([ask]), calls=60)


def _hashed_words(numpy: Any) -> Callable[[list[str]], list[list[float]]]:
    """Return an encoder that counts words by their hash in 384 places."""

    def encode(texts: list[str]) -> list[list[float]]:
        vectors = []
        for text in texts:
            vector = numpy.zeros(384, "float32")
            for word in text.lower().split():
                vector[zlib.crc32(word.encode()) % 384] += 1
            vectors.append((vector / (numpy.linalg.norm(vector) or 1)).tolist())
        return vectors

    return encode


def _routellm() -> Iterator[Subject]:
    """Yield RouteLLM's own mf module; its embedding client is replaced by one that answers at once."""
    # Its import makes an OpenAI client, which wants a key though nothing is sent, and must not go out.
    for name, value in (
        ("OPENAI_API_KEY", "none"),
        ("HF_HUB_OFFLINE", "1"),
        ("LITELLM_LOCAL_MODEL_COST_MAP", "1"),
    ):
        os.environ.setdefault(name, value)
    try:
        torch = import_module("torch")
        module: Any = import_module("routellm.routers.matrix_factorization.model")
    except ImportError as error:
        say(f"benchmarks: RouteLLM is left out: {error}")
        return
    torch.set_num_threads(1)
    torch.manual_seed(0)
    answer = SimpleNamespace(data=[SimpleNamespace(embedding=torch.randn(1536).tolist())])
    module.OPENAI_CLIENT = SimpleNamespace(embeddings=SimpleNamespace(create=lambda **_: answer))
    model = module.MFModel(dim=128, num_models=64, text_dim=1536, num_classes=1, use_proj=True).eval()
    ask = _middle_ask()
    yield Subject(_MF, lambda _: model.pred_win_rate(1, 2, ask), calls=60)


def _middle_ask() -> str:
    request = Request.parse(_body(1_000, _WEIGHED))
    return str(request.messages[-1]["content"])


# --- what came out -------------------------------------------------------------------------------------


def _slower(found: dict[str, Timing], size: int) -> Timing:
    return max((found[_ours_name(size, kind)] for kind in _KINDS[size]), key=lambda timing: timing.p50)


def _table(found: dict[str, Timing]) -> Table:
    rows = tuple(
        (
            name,
            *(f"{us:.1f}" for us in (t.p50, t.p95, t.p99, t.mean, t.worst_p50)),
            f"{t.turns} x {t.calls:,}",
        )
        for name, t in found.items()
    )
    head = ("us per call", "p50", "p95", "p99", "mean", "p50, worst turn", "turns x calls")
    return Table("All in one run, turn by turn; the best turn of each", head, rows)


def _ratios(found: dict[str, Timing]) -> Table:
    """Return theirs over ours, without and with our decoding of the body."""
    ours = _slower(found, 1_000).p50
    with_decode = ours + found[_decode_name(1_000)].p50
    rows = tuple(
        (name, f"{found[name].p50 / ours:.1f}", f"{found[name].p50 / with_decode:.1f}")
        for name in (_ASYNC, _SYNC, _MF)
        if name in found
    )
    head = ("p50 over ours (1 KB, the slower ask)", "decision only", "our decoding counted in")
    return Table("Ratios", head, rows)


def _reading(found: dict[str, Timing]) -> Iterator[str]:
    for size, limit in _LIMITS_US.items():
        timing, decode = _slower(found, size), found[_decode_name(size)]
        yield (
            f"{_NAMES[size]}: {timing.p50:.1f} us p50 against {limit:.0f}, "
            f"and {decode.p50:.1f} us to parse and decode the body."
        )
    if _MF in found:
        slower = found[_MF].p50 / _MF_WHEN_SET_US
        scaled = ", ".join(
            f"{_slower(found, size).p50 / slower:.0f} us at {_NAMES[size]}" for size in _LIMITS_US
        )
        yield (
            f"When the figures were set, RouteLLM's head took {_MF_WHEN_SET_US:.0f} us where that was "
            f"done; here it takes {slower:.1f} times that. Scaled alike, ours would be {scaled}. "
            "The verdicts above are not scaled."
        )
    if _ASYNC in found:
        encoder = found[_ENCODER].p50
        yield (
            f"semantic-router spends {encoder:.0f} us of its {found[_ASYNC].p50:.0f} us in the stand-in "
            "encoder; a real one is a model or a network call, so with it a decision takes milliseconds."
        )
    missing = [name for name in (_ASYNC, _MF) if name not in found]
    if missing:
        yield f"Not measured, because not installed: {', '.join(missing)}."
    yield (
        "What the ratios do not say: the others judge by meaning, we by words, pairs of words and sizes; "
        "where those do not tell we are unsure and save nothing, where they still give an answer. "
        "This is a comparison of cost, not of quality; `types` is about quality."
    )


def _method() -> tuple[str, ...]:
    return (
        (
            "`features.read` and `Router.decide` of a `Runtime` with default settings, the check of fit "
            "included; each call gets a request parsed and decoded anew, so that nothing is remembered."
        ),
        (
            "245 B: one short ask. 1 KB: a line of system prompt and an ask of some 850 characters. 20 KB: "
            "a coding agent's system prompt, six tools, six tool calls with results, a reminder, a short ask."
        ),
        (
            "Others: 10 routes of 10 examples, a stand-in encoder of hashed words (semantic-router); "
            "random weights of the published shape, one thread, embedding call left out (RouteLLM's own "
            "`MFModel`). Both get the ask of our 1 KB request as a bare string."
        ),
        (
            f"Wall time by `perf_counter_ns`; reading the clock costs {clock_us():.2f} us and is in every "
            "figure. The best turn counts, as on a machine of its own; the worst turn stands beside it."
        ),
    )
