"""What waits is done soon, in order, by one thread, which nothing ends but its closing."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import closing

import pytest

from leastwise.stores.worker import Worker


class Done:
    """What was done; nothing is while it `fails`."""

    def __init__(self, *, fails: bool = False) -> None:
        self.items: list[str] = []
        self.fails = fails
        self.again = threading.Semaphore(0)

    def __call__(self, items: list[str]) -> list[str]:
        if items == ["broken"]:
            raise ZeroDivisionError
        self.again.release()
        if self.fails:
            return items
        self.items += items
        return []


def test_what_was_put_is_done_in_order() -> None:
    done = Done()
    with closing(Worker(done, "test")) as worker:
        worker.start()
        worker.put(*"abc")
        worker.put("d")
        worker.flush()
        assert ["a", "b", "c", "d"] == done.items
        assert worker.is_empty


def test_what_was_not_done_is_tried_with_what_comes_next_or_when_woken() -> None:
    done = Done(fails=True)
    with closing(Worker(done, "test")) as worker:
        worker.put("a")
        worker.flush()
        assert ([], False) == (done.items, worker.is_empty)
        done.fails = False
        worker.put("b")
        worker.flush()
        assert (["a", "b"], True) == (done.items, worker.is_empty)
        done.fails = True
        worker.put("c")
        worker.flush()
        done.fails = False
        worker.wake()
        worker.flush()
        assert (["a", "b", "c"], True) == (done.items, worker.is_empty)


def test_closing_does_what_waits_and_the_worker_can_be_used_again() -> None:
    done = Done()
    worker = Worker(done, "test")
    worker.put("a")  # nobody is there yet to do it
    worker.close()
    assert ["a"] == done.items
    worker.start()
    worker.put("b")
    worker.close()
    worker.close()
    worker.put("c")
    worker.flush()
    worker.close()

    assert ["a", "b", "c"] == done.items


def test_what_is_left_at_the_end_is_said(caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker(Done(fails=True), "test")
    worker.put("a", "b")
    worker.close()

    assert "test: 2 could not be done before the end" in caplog.text


def test_an_item_that_breaks_does_not_end_the_worker(caplog: pytest.LogCaptureFixture) -> None:
    done = Done()
    with closing(Worker(done, "test")) as worker:
        worker.put("broken")
        worker.flush()
        worker.put("a")
        worker.flush()

    assert ["a"] == done.items
    assert "test failed" in caplog.text


def test_it_is_called_now_and_then_though_nothing_came() -> None:
    done = Done()
    with closing(Worker(done, "test", every_s=0.001)) as worker:
        worker.start()
        for _ in range(3):
            assert done.again.acquire(timeout=10)

    assert [] == done.items


def test_where_the_system_has_no_thread_left_it_is_done_by_who_flushes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError

    done = Done()
    worker = Worker(done, "test")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    worker.put("a")
    worker.flush()
    assert ["a"] == done.items


def test_the_last_to_leave_may_be_the_thread_itself() -> None:
    def do(items: list[str]) -> list[str]:
        worker.close()
        return [] if items else items

    worker = Worker(do, "test")
    worker.start()
    worker.put("a")
    thread = worker._thread
    assert thread is not None
    thread.join(10)

    assert not thread.is_alive()


@pytest.mark.skipif(sys.platform == "win32", reason="nothing forks there")
def test_what_waits_when_a_process_forks_is_the_parents() -> None:
    done = Done()
    with closing(Worker(done, "test")) as worker:
        worker.put("a")
        child = os.fork()
        if child == 0:  # pragma: no cover - in the child, which counts nothing
            is_new = worker.is_empty
            worker.put("b")
            worker.flush()
            os._exit(0 if is_new and done.items == ["b"] else 1)

        assert (child, 0) == os.waitpid(child, 0)
    assert ["a"] == done.items
