"""What `import leastwise` offers, and what it leaves alone."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import leastwise
from leastwise.cascade import BUILT_IN

HEAVY = ["aiohttp", "anthropic", "cyclopts", "rich", "sqlite3", "uvicorn"]

#: Imports the package and prints what that opened, besides Python files, and which modules it brought.
PROBE = """
import json, sys
touched = []

def watch(event, args):
    if event == "open" and not str(args[0]).endswith((".py", ".pyc")):
        touched.append(f"open {args[0]}")
    elif event.startswith(("socket.", "subprocess.", "sqlite3.", "os.mkdir", "os.putenv")):
        touched.append(event)

sys.addaudithook(watch)
import leastwise
print(json.dumps({"touched": touched, "modules": sorted(sys.modules)}))
"""


def test_all_is_sorted_and_names_each_once() -> None:
    assert sorted(set(leastwise.__all__)) == leastwise.__all__


def test_all_is_what_type_checkers_see() -> None:
    tree = ast.parse(Path(str(leastwise.__file__)).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in imports if str(node.module).startswith("leastwise")]
    seen = {alias.asname or alias.name for node in ours for alias in node.names}

    assert seen == set(leastwise.__all__) - {"__version__"}


@pytest.mark.parametrize("name", leastwise.__all__)
def test_each_name_can_be_had(name: str) -> None:
    assert getattr(leastwise, name) == getattr(leastwise, name)


def test_another_name_is_an_error_that_names_it() -> None:
    name = "no_such_name"

    with pytest.raises(AttributeError, match=name):
        getattr(leastwise, name)


def test_every_check_that_is_built_in_can_be_had() -> None:
    checks = leastwise.checks

    assert sorted(set(checks.__all__)) == checks.__all__
    assert [] == [name for name in BUILT_IN if name not in checks.__all__]


def test_the_version_is_the_installed_one() -> None:
    assert importlib.metadata.version("leastwise") == leastwise.__version__


def test_importing_opens_nothing_and_brings_nothing_heavy() -> None:
    # Without the settings by which coverage measures other programs: they open files of their own.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-c", PROBE]
    printed = subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout  # noqa: S603
    seen = json.loads(printed)

    assert [] == seen["touched"]
    assert [] == [name for name in HEAVY if name in seen["modules"]]
