"""What is called every few seconds: for as long as its object lives, whatever it raises, in a child, too."""

from __future__ import annotations

import gc
import os
import threading
import weakref

import pytest

from leastwise.heart import Heart


class Owner:
    """Counts how often it was called; fails the first time."""

    def __init__(self, *, every_s: float) -> None:
        self.beats = 0
        self.has_beaten = threading.Event()
        self.heart = Heart(self.beat, every_s=every_s)

    def beat(self) -> None:
        self.beats += 1
        if self.beats == 1:
            raise ZeroDivisionError
        self.has_beaten.set()


def test_it_goes_on_after_a_failure_which_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    owner = Owner(every_s=0.01)
    owner.heart.start()
    assert owner.has_beaten.wait(10)
    owner.heart.stop()
    assert "is tried again" in caplog.text


def test_it_beats_once_more_at_the_end_where_it_was_beating_and_never_after() -> None:
    beating, silent = Owner(every_s=60), Owner(every_s=60)
    beating.heart.start()
    for owner in (beating, silent):
        owner.heart.stop()
        owner.heart.stop()
        owner.heart.start()
    assert [1, 0] == [beating.beats, silent.beats]


def test_it_keeps_no_object_alive_and_ends_with_it() -> None:
    owner = Owner(every_s=0.01)
    owner.heart.start()
    thread, watched = owner.heart._thread, weakref.ref(owner)
    assert thread is not None
    del owner
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()
    assert None is watched()


def test_a_child_begins_anew() -> None:
    owner = Owner(every_s=60)
    owner.heart.start()
    child = os.fork()
    if child == 0:  # pragma: no cover - not measured there
        owner.heart._every_s = 0.01
        owner.heart.start()
        os._exit(0 if owner.has_beaten.wait(10) else 1)
    assert 0 == os.waitpid(child, 0)[1]
    assert 0 == owner.beats
    owner.heart.stop()
