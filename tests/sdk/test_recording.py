"""`leastwise.record`: every message in a file of one's own, and the caller notices nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import pydantic
import pytest

import leastwise
from leastwise.build import Runtime
from leastwise.cli import app
from leastwise.config import load
from leastwise.simulate import Server, serve
from tests.kit import HAIKU, OPUS
from tests.sdk.majors import http

ASK = [{"role": "user", "content": "Is this spam? Win $1000 now!!!"}]
CALL: dict[str, Any] = {"model": OPUS, "max_tokens": 2048, "messages": ASK}
TOOL: Any = {
    "name": "get_weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
MARKER = "sk-ant-the-marker"
BETA = "context-1m-2025-08-07"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calls.jsonl"


def plain(server: Server, path: Path) -> Iterator[anthropic.Anthropic]:  # noqa: ARG001 - as below
    with anthropic.Anthropic(api_key=MARKER, base_url=server.url, max_retries=0) as client:
        yield client


def ours(server: Server, path: Path) -> Iterator[leastwise.Anthropic]:
    environ = {"LEASTWISE_STORE_URL": ":memory:", "XDG_CONFIG_HOME": str(path.parent)}
    with (
        Runtime(load(None, environ, cwd=path.parent)) as runtime,
        leastwise.Anthropic(api_key=MARKER, base_url=server.url, max_retries=0, leastwise=runtime) as client,
    ):
        yield client


@pytest.fixture(params=[plain, ours])
def client(request: pytest.FixtureRequest, server: Server, path: Path) -> Iterator[anthropic.Anthropic]:
    yield from request.param(server, path)


def lines(path: Path) -> list[dict[str, Any]]:
    assert MARKER not in path.read_text()
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_message_is_written_as_it_was_sent_and_answered(client: anthropic.Anthropic, path: Path) -> None:
    recording = leastwise.record(client, path)
    message = recording.messages.create(**CALL, system=[{"type": "text", "text": "Be brief"}])
    (line,) = lines(path)
    assert {**CALL, "system": [{"type": "text", "text": "Be brief"}]} == line["request"]
    assert message.to_dict(mode="json") == line["response"]
    assert line["at"].endswith("+00:00")
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)

    client.messages.create(**CALL)  # the client it was made of does not record
    assert 1 == len(lines(path))


def test_a_stream_is_written_as_the_message_it_adds_up_to(client: anthropic.Anthropic, path: Path) -> None:
    recording = leastwise.record(client, path)
    with recording.messages.stream(**CALL) as stream:
        final = stream.get_final_message()
    with recording.messages.create(**CALL, stream=True) as events:
        list(events)
    with recording.messages.with_streaming_response.create(**CALL) as response:
        response.read()
    first, second, third = [line["response"] for line in lines(path)]
    assert final.model_dump(mode="json", include={"id", "model", "stop_reason"}) == {
        name: first[name] for name in ("id", "model", "stop_reason")
    }
    assert [block.type for block in final.content] == [block["type"] for block in first["content"]]
    assert final.usage.output_tokens == first["usage"]["output_tokens"] > 0
    assert "end_turn" == second["stop_reason"] == third["stop_reason"]
    texts = [[block.get("text") for block in one["content"]] for one in (first, second, third)]
    assert texts[0] == texts[1] == texts[2]


def test_tools_and_what_is_parsed_are_written(client: anthropic.Anthropic, path: Path) -> None:
    class Verdict(pydantic.BaseModel):
        is_spam: bool

    recording = leastwise.record(client, path)
    weather = {"role": "user", "content": "What is the weather in Paris? use the tool"}
    with recording.messages.stream(**{**CALL, "messages": [weather]}, tools=[TOOL]) as stream:
        final = stream.get_final_message()
    recording.messages.parse(**CALL, output_format=Verdict)
    raw = recording.messages.with_raw_response.create(**CALL)
    used, parsed, whole = lines(path)
    (block,) = [block for block in final.content if block.type == "tool_use"]
    assert block.input in [one.get("input") for one in used["response"]["content"]]
    assert "json_schema" == parsed["request"]["output_config"]["format"]["type"]
    assert raw.parse().id == whole["response"]["id"]


def test_errors_and_what_was_left_are_written(
    client: anthropic.Anthropic, server: Server, path: Path
) -> None:
    recording = leastwise.record(client, path)
    server.simulator.fail_next(status=529)
    with pytest.raises(anthropic.APIStatusError):
        recording.messages.create(**CALL)
    with recording.messages.create(**CALL, stream=True) as stream:
        next(iter(stream))
    server.simulator.drop_next(after_events=3)
    with pytest.raises(http.RemoteProtocolError), recording.messages.create(**CALL, stream=True) as stream:
        list(stream)
    server.simulator.malform_next()
    with pytest.raises(json.JSONDecodeError), recording.messages.create(**CALL, stream=True) as stream:
        list(stream)
    refused, left, broken, garbled = lines(path)
    assert "OverloadedError" in refused["error"]
    assert left["response"]["model"] == garbled["response"]["model"] == OPUS
    assert broken["error"].startswith("RemoteProtocolError: ")


def test_a_copy_records_too(client: anthropic.Anthropic, path: Path) -> None:
    recording = leastwise.record(client, path)
    recording.with_options(timeout=20).messages.create(**CALL)
    recording.copy(max_retries=1).beta.messages.create(**CALL)
    assert 2 == len(lines(path))


def test_the_file_is_appended_to_by_whole_lines(client: anthropic.Anthropic, path: Path) -> None:
    recording = leastwise.record(client, path)

    def work() -> None:
        for _ in range(5):
            recording.messages.create(**CALL)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    leastwise.record(client, path).messages.create(**CALL)
    assert 21 == len(lines(path))


def test_what_a_task_says_goes_where_it_did_and_not_into_the_file(server: Server, path: Path) -> None:
    for client in ours(server, path):
        recording = leastwise.record(client, path)
        message = recording.messages.create(**{**CALL, "model": "auto"}, task=leastwise.Task(tag="triage"))
        outcome = leastwise.outcome(message)
        assert outcome is not None
        story = client.leastwise.store.find(message.id)
        assert story is not None
        assert ("triage", HAIKU) == (story.exchange.tag, outcome.model)
        (line,) = lines(path)
        assert {**CALL, "model": "auto"} == line["request"]


def test_a_file_that_cannot_be_made_is_said_before_anything_is_sent(
    client: anthropic.Anthropic, path: Path
) -> None:
    with pytest.raises(OSError, match="calls"):
        leastwise.record(client, path / "below" / "calls.jsonl")


def test_a_file_that_cannot_be_written_any_more_withholds_no_answer(
    client: anthropic.Anthropic, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recording = leastwise.record(client, path)
    path.unlink()
    path.mkdir()
    assert OPUS == recording.messages.create(**CALL).model
    assert f"a message is not recorded in {path}: IsADirectoryError" in caplog.messages


@pytest.mark.parametrize(
    ("content", "kind", "written"),
    [
        (b"<html>", "text/html", "<html>"),
        (b"{oops", "application/json", "{oops"),
        (b"[1]", "application/json", [1]),
        (b"", "application/json", ""),
    ],
)
def test_an_answer_that_is_no_message_is_written_as_it_came(
    path: Path, content: bytes, kind: str, written: object
) -> None:
    transport = http.MockTransport(
        lambda _: http.Response(200, headers={"content-type": kind}, content=content)
    )
    with anthropic.Anthropic(
        api_key="k", http_client=anthropic.DefaultHttpxClient(transport=transport), max_retries=0
    ) as client:
        recording = leastwise.record(client, path)
        with recording.messages.with_streaming_response.create(**CALL) as response:
            assert content == response.read()
    (line,) = lines(path)
    assert written == line["response"]


def test_async_has_the_same_face(server: Server, path: Path) -> None:
    async def work() -> None:
        async with anthropic.AsyncAnthropic(api_key=MARKER, base_url=server.url, max_retries=0) as client:
            recording = leastwise.record(client, path)
            await recording.messages.create(**CALL)
            async with recording.messages.stream(**CALL) as stream:
                await stream.get_final_message()
            await recording.with_options(timeout=9).messages.create(**CALL)
            server.simulator.fail_next(status=400)
            with pytest.raises(anthropic.BadRequestError):
                await recording.messages.create(**CALL)
            server.simulator.stall_next(5)
            task = asyncio.ensure_future(recording.messages.create(**CALL))
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(work())
    *answered, refused, cancelled = lines(path)
    assert ["end_turn"] * 3 == [line["response"]["stop_reason"] for line in answered]
    assert "BadRequestError" in refused["error"]
    assert "CancelledError: " == cancelled["error"]


def test_the_report_reads_what_was_recorded(
    client: anthropic.Anthropic, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = leastwise.record(client, path)
    for _ in range(3):
        recording.messages.create(**CALL)
    with recording.messages.stream(**CALL) as stream:
        stream.until_done()
    told: Callable[..., Any] = app
    with pytest.raises(SystemExit) as ended:
        told(["report", str(path), "--json"])
    assert not ended.value.code
    assert 1 == json.loads(capsys.readouterr().out)["schema"]


def test_nothing_is_logged_of_what_is_said(
    client: anthropic.Anthropic, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="leastwise"):
        leastwise.record(client, path).messages.create(**CALL)
    assert "Win $1000" not in caplog.text


def test_tag_and_betas_are_written_where_there_are_any(server: Server, path: Path) -> None:
    for client in ours(server, path):
        recording = leastwise.record(client, path)
        recording.messages.create(**CALL, task=leastwise.Task("x"))
        recording.messages.create(**CALL, task=leastwise.Task(tag="mail"))
        recording.beta.messages.create(**CALL, betas=[BETA], task=leastwise.Task(tag="mail"))

    plain, tagged, beta = lines(path)
    assert {"at", "request", "response"} == plain.keys()
    assert {"at", "tag", "request", "response"} == tagged.keys()
    assert ("mail", "mail", [BETA]) == (tagged["tag"], beta["tag"], beta["betas"])
