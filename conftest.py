"""What every test and every documented example gets: a home of its own, and a simulated upstream.

Collects the examples too: `python` blocks of README.md and docs/, and `>>>` in docstrings.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import anthropic
import pytest
from hypothesis import HealthCheck, settings
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from sybil.parsers.rest import DocTestParser
from sybil.sybil import SybilCollection
from sybil.typing import Parser

# Time proves nothing on a machine shared with others; in CI a failure must come again.
settings.register_profile(
    "leastwise",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("CI") == "true",
    print_blob=True,
)
settings.load_profile("leastwise")

#: Need packages that `.venv` does not hold; `dev.py test` names them where they are.
collect_ignore = ["tests/frameworks"]

_OWN_PREFIXES = ("ANTHROPIC_", "LEASTWISE_")
_HOMES = {
    "HOME": "home",
    "USERPROFILE": "home",
    "APPDATA": "config",
    "LOCALAPPDATA": "state",
    "XDG_CACHE_HOME": "cache",
    "XDG_CONFIG_HOME": "config",
    "XDG_DATA_HOME": "data",
    "XDG_STATE_HOME": "state",
}


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests away from the user's files, settings, keys and proxy."""
    root = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(_OWN_PREFIXES):
                patch.delenv(name)
        for name, folder in _HOMES.items():
            (root / folder).mkdir(exist_ok=True)
            patch.setenv(name, str(root / folder))
        patch.setenv("LEASTWISE_REFRESH_MODELS", "false")  # a test that wants it says so
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        patch.setenv("COLUMNS", "80")
        yield


@pytest.fixture(scope="session")
def _simulated(_home: None) -> Iterator[str]:
    """Run the simulated upstream on a free loopback port; return its address."""
    from leastwise.simulate import serve  # noqa: PLC0415 - only examples need it

    with serve(port=0) as upstream:
        yield upstream.url
        for client in gc.get_objects():  # examples leave theirs open, as programs that end may
            if isinstance(client, anthropic.Anthropic):
                client.close()


@pytest.fixture
def _example(_simulated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a documented example the simulated upstream and an empty working directory."""
    monkeypatch.setenv("ANTHROPIC_BASE_URL", _simulated)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "simulated")
    monkeypatch.chdir(tmp_path)


_BLOCKS: list[Parser] = [PythonCodeBlockParser(), SkipParser()]

pytest_collect_file = SybilCollection(
    [
        Sybil(_BLOCKS, pattern="README.md", fixtures=["_example"]),
        Sybil(_BLOCKS, path="docs", pattern="*.md", fixtures=["_example"]),
        Sybil([DocTestParser()], path="src", pattern="*.py", fixtures=["_example"]),
    ]
).pytest()
