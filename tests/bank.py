"""An upstream in a process of its own, which keeps the true bill: who asked what, when, and what it cost.

It speaks lines of JSON over plain sockets: an eighth of what the simulated API costs over HTTP, so that a
busy machine hammers the stores and not this. What is billed is worked out by the simulator's tariff.

It is true to life where the ledger has to estimate: a caller who leaves early has been billed for no more
than a fast model can have produced by then. Who may leave says after how long it will at the earliest;
everybody else waits for whatever comes.
"""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, Literal

import msgspec

from leastwise.errors import UpstreamFailure
from leastwise.messages import Facts, Held, Reply, Usage
from leastwise.models import load_models
from leastwise.prices import load_prices
from leastwise.simulate.books import Tariff, usage_json
from leastwise.sse import encode
from tests.servers import HOST

_FASTEST: Final = 200  # tokens in a second
_CHUNK: Final = "four words of it all"
_TOKENS_PER_CHUNK: Final = len(_CHUNK) // 4
_LONGEST_PAUSE_S: Final = 0.02
_LONGEST_HASTY_S: Final = 0.08
_LINE: Final = 2**20


class Ask(msgspec.Struct, frozen=True):
    """One call: of which process, for which entry; `leaves_s` is None for a caller who waits."""

    who: str
    id: str
    model: str
    text_bytes: int
    marks_cache: bool
    max_tokens: int
    is_stream: bool
    leaves_s: float | None


class Told(msgspec.Struct, frozen=True):
    """What the answer begins with: `size` bytes of a stream follow, and `end` is how it ends."""

    status: int
    model: str = ""
    usage: dict[str, Any] = {}
    size: int = 0
    end: Literal["whole", "left", "cut"] = "whole"


class Bill(msgspec.Struct, frozen=True):
    """What one call was billed, and when it arrived."""

    who: str
    id: str
    nusd: int
    at: float
    kind: str


# Made before there are threads: msgspec ends the process when several are the first to use a type.
_ask: Final = msgspec.json.Decoder(Ask).decode
_told_of: Final = msgspec.json.Decoder(Told).decode


class _Answer(msgspec.Struct, frozen=True):
    """What becomes of a call: `told` is None where the connection is closed without a word."""

    kind: str
    pause_s: float
    usage: Usage
    told: Told | None
    body: bytes = b""


class _Bank:
    """Answers at random, and bills."""

    def __init__(self, seed: int) -> None:
        self.bills: list[Bill] = []
        self._rng = random.Random(seed)
        self._tariff = Tariff(load_prices())
        self._models = load_models()

    def serve(self, ask: Ask) -> _Answer:
        answer = self._answer(ask)
        model = self._models.get(ask.model)
        assert model is not None
        now = time.time()
        nusd = self._tariff.bill(model, answer.usage, now)
        self.bills.append(Bill(ask.who, ask.id, nusd, now, answer.kind))
        return answer

    def _answer(self, ask: Ask) -> _Answer:
        draw, pause_s = self._rng.random(), self._rng.uniform(0, _LONGEST_PAUSE_S)
        if ask.leaves_s is not None:
            pause_s = self._rng.uniform(0, _LONGEST_HASTY_S)
            usage = self._usage(ask, int(_FASTEST * min(pause_s, ask.leaves_s)))
            return _Answer("hasty", pause_s, usage, _told(ask, usage))
        if draw < 0.06:
            return _Answer("429", pause_s, Usage(), Told(429))
        if draw < 0.12:
            return _Answer("5xx", pause_s, Usage(), Told(self._rng.choice([500, 529])))
        if draw < 0.16:
            return _Answer("hung up", pause_s, self._usage(ask, int(_FASTEST * pause_s)), None)
        if ask.is_stream and draw < 0.5:
            return self._broken(ask, pause_s, "left" if draw < 0.35 else "cut")
        output = ask.max_tokens if draw > 0.9 else self._rng.randint(1, ask.max_tokens)
        usage = self._usage(ask, output)
        if not ask.is_stream:
            return _Answer("plain", pause_s, usage, _told(ask, usage))
        body = _stream(ask, usage, self._rng.randint(0, 5), is_whole=True)
        return _Answer("stream", pause_s, usage, _told(ask, usage, size=len(body)), body)

    def _broken(self, ask: Ask, pause_s: float, end: Literal["left", "cut"]) -> _Answer:
        """Return a stream that ends early; some of what was produced is never shown."""
        chunks = self._rng.randint(0, min(6, ask.max_tokens // _TOKENS_PER_CHUNK))
        usage = self._usage(ask, max(chunks * _TOKENS_PER_CHUNK, int(_FASTEST * pause_s)))
        body = _stream(ask, usage, chunks, is_whole=False)
        return _Answer(end, pause_s, usage, _told(ask, usage, size=len(body), end=end), body)

    def _usage(self, ask: Ask, output: int) -> Usage:
        tokens = -(-13 * ask.text_bytes // 40)
        written = self._rng.randint(0, tokens) if ask.marks_cache else 0
        read = self._rng.randint(0, tokens - written) if ask.marks_cache else 0
        return Usage(
            input_tokens=tokens - written - read,
            output_tokens=min(max(1, output), ask.max_tokens),
            cache_write_1h_tokens=written,
            cache_read_input_tokens=read,
        )


def _told(ask: Ask, usage: Usage, *, size: int = 0, end: Literal["whole", "left", "cut"] = "whole") -> Told:
    return Told(200, ask.model, dict(usage_json(usage)), size, end)


def _stream(ask: Ask, usage: Usage, chunks: int, *, is_whole: bool) -> bytes:
    """Return a stream's events, up to so many pieces of text and, where it is whole, to its end."""
    begun = {**usage_json(usage), "output_tokens": 1}
    message = {"id": f"msg_{ask.id}", "model": ask.model, "usage": begun}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": _CHUNK}}
    events: list[tuple[str, Any]] = [("message_start", {"type": "message_start", "message": message})]
    events += [("content_block_delta", delta)] * chunks
    if is_whole:
        told: Any = {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": usage.output_tokens}}
        events += [("message_delta", told), ("message_stop", {"type": "message_stop"})]
    return b"".join(encode(name, msgspec.json.encode(data)) for name, data in events)


class _Connection(asyncio.Protocol):
    """One caller: a line is a call, `report` asks for all bills, the end of `stdin` ends the bank."""

    def __init__(self, bank: _Bank) -> None:
        self._bank = bank
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            if line == b"report":
                self._transport.write(msgspec.json.encode(self._bank.bills) + b"\n")
            else:
                answer = self._bank.serve(_ask(line))
                asyncio.get_running_loop().call_later(answer.pause_s, self._say, answer)

    def _say(self, answer: _Answer) -> None:
        if answer.told is not None:
            self._transport.write(msgspec.json.encode(answer.told) + b"\n" + answer.body)
        if answer.told is None or answer.told.end != "whole":
            self._transport.close()


async def _serve(seed: int) -> None:
    bank, loop = _Bank(seed), asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(bank), HOST, 0, backlog=1000)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - what it was asked for
    async with server:
        await loop.run_in_executor(None, sys.stdin.read)


@contextmanager
def bank(seed: int = 1) -> Iterator[int]:
    """Run a bank in a process of its own; give its port."""
    command = [sys.executable, "-m", "tests.bank", str(seed)]
    with subprocess.Popen(  # noqa: S603 - ourselves
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


def bills_of(port: int) -> list[Bill]:
    """Return all that was billed so far."""
    with socket.create_connection((HOST, port)) as line, line.makefile("rwb") as file:
        file.write(b"report\n")
        file.flush()
        return msgspec.json.decode(file.readline(), type=list[Bill])


class Line:
    """One thread's connection to a bank, made anew when it was closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._file: Any = None
        self._socket: socket.socket | None = None

    def ask(self, ask: Ask) -> Reply:
        """Return the answer of a call; a live one holds what was told, and the bytes of its stream.

        Raises:
            UpstreamFailure: an error was answered, or none came.
        """
        try:
            if self._socket is None:
                self._socket = socket.create_connection((HOST, self._port))
                self._file = self._socket.makefile("rwb")
            self._socket.settimeout(ask.leaves_s)
            self._file.write(msgspec.json.encode(ask) + b"\n")
            self._file.flush()
            told = _read(self._file.readline())
            body = self._file.read(told.size)
        except OSError as error:
            self.close()
            raise UpstreamFailure(error) from error
        if told.end != "whole":
            self.close()
        return _reply(ask, told, body)

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            with suppress(OSError):
                self._file.close()
            self._socket.close()
            self._socket = None


class AsyncLine:
    """The same for one task of an event loop; a cancelled call hangs up."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, ask: Ask) -> Reply:
        """Return the answer of a call, as `Line.ask` does."""
        is_whole = False
        try:
            if self._reader is None or self._writer is None:
                self._reader, self._writer = await asyncio.open_connection(HOST, self._port, limit=_LINE)
            self._writer.write(msgspec.json.encode(ask) + b"\n")
            told = _read(await self._reader.readline())
            body = await self._reader.readexactly(told.size)
            is_whole = told.end == "whole"
        except (OSError, asyncio.IncompleteReadError) as error:
            raise UpstreamFailure(error) from error
        finally:
            if not is_whole:
                self.close()
        return _reply(ask, told, body)

    def close(self) -> None:
        """Hang up."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


def _read(line: bytes) -> Told:
    if not line.endswith(b"\n"):
        message = "closed without an answer"
        raise ConnectionResetError(message)
    return _told_of(line)


def _reply(ask: Ask, told: Told, body: bytes) -> Reply:
    if told.status != 200:
        raise UpstreamFailure(OSError(told.status), status=told.status, headers={"retry-after-ms": "5"})
    if ask.is_stream and told.size:
        return Reply(Held((told, body)))
    usage = Usage.read(told.usage)
    return Reply(told, Facts(told.model, f"msg_{ask.id}", "end_turn", usage, is_complete=True))


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
