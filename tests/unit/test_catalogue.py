"""What upstreams say of their models is kept, laid over the table, and never in the way."""

from __future__ import annotations

import logging
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from leastwise.build import Runtime
from leastwise.catalogue import Catalogue
from leastwise.config import load
from leastwise.ladder import Task
from leastwise.models import load_models
from leastwise.stores.sqlite import SqliteStore
from tests.kit import HAIKU, NOW, Clock, request

URL = "http://127.0.0.1:9"
RETIRING = {"id": HAIKU, "lifecycle": "deprecated", "retires_at": "2027-01-01T00:00:00Z", "display_name": "H"}
DAY_S = 24 * 3600


def test_what_is_kept_is_laid_over_the_table(tmp_path: Path) -> None:
    kept = Catalogue(tmp_path / "new")

    kept.keep(f"{URL}/", [RETIRING], NOW)

    haiku = kept.over(load_models(), [URL, URL]).get(HAIKU)
    assert haiku is not None
    assert ("deprecated", date(2027, 1, 1)) == (haiku.lifecycle, haiku.retires)
    assert list(load_models()) == list(kept.over(load_models(), ["http://127.0.0.1:8"]))
    file = kept.file(URL)
    assert file is not None
    assert b"display_name" not in file.read_bytes()
    assert [file] == list(file.parent.iterdir())


def test_a_day_old_listing_is_no_longer_fresh(tmp_path: Path) -> None:
    kept = Catalogue(tmp_path)
    assert not kept.is_fresh(URL, NOW)

    kept.keep(URL, [], NOW)

    assert [True, False, False] == [kept.is_fresh(URL, at) for at in (NOW + DAY_S - 1, NOW + DAY_S, NOW - 1)]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[1]",
        b"\xff",
        b'[{"id": 7}]',
        b'[{"id": "\xff"}]',
        b'[{"id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]",
    ],
    ids=["empty", "object", "number", "bytes", "no id", "no text", "deep"],
)
def test_a_garbled_file_says_nothing(tmp_path: Path, content: bytes) -> None:
    kept = Catalogue(tmp_path)
    file = kept.file(URL)
    assert file is not None
    file.write_bytes(content)

    assert list(load_models()) == list(kept.over(load_models(), [URL]))


def test_what_cannot_be_kept_is_no_harm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "file").write_text("")
    kept = Catalogue(tmp_path / "file")

    kept.keep(URL, [RETIRING], NOW)

    assert "the listing of models is not kept" in caplog.text
    nowhere = Catalogue(None)
    nowhere.keep(URL, [RETIRING], NOW)
    assert (None, True) == (nowhere.file(URL), nowhere.is_fresh(URL, NOW))
    assert list(load_models()) == list(nowhere.over(load_models(), [URL]))


def runtime(folder: Path, clock: Clock, **settings: object) -> Runtime:
    environ = {"XDG_CACHE_HOME": str(folder), "ANTHROPIC_BASE_URL": URL}
    config = load(environ=environ, cwd=folder, arguments=settings)
    return Runtime(config, store=SqliteStore(":memory:", clock=clock), clock=clock)


def test_a_runtime_wants_a_listing_once_a_day_and_all_go_by_it(tmp_path: Path) -> None:
    clock = Clock()
    with runtime(tmp_path, clock) as mine, runtime(tmp_path, clock) as other:
        assert [True, False] == [mine.wants_models(f"{URL}/"), mine.wants_models(URL)]
        mine.learn_models(URL, [RETIRING])
        clock.sleep(1)
        for one in (mine, other):
            one.call(request(), Task(), max_retries=0)
        learned: Any = mine.terms.models.get(HAIKU)
        assert learned == other.terms.models.get(HAIKU)
        clock.sleep(3600)
        assert not mine.wants_models(URL)
        clock.sleep(DAY_S)
        assert mine.wants_models(URL)
    with runtime(tmp_path, clock) as later:
        kept: Any = later.terms.models.get(HAIKU)

    assert date(2027, 1, 1) == learned.retires == kept.retires


def test_nobody_is_asked_unasked(tmp_path: Path) -> None:
    with runtime(tmp_path, Clock()) as other:
        assert not other.wants_models("http://127.0.0.1:8")  # of no configured upstream
    with runtime(tmp_path, Clock(), refresh_models=False) as off:
        assert not off.wants_models(URL)
