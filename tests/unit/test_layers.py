"""The layers contract: a module imports only from lower rungs, and only at its top."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import leastwise

TOP = 11
RUNGS: dict[float, str] = {
    0: "errors",
    1: "money messages sqlite",
    1.5: "sse",  # reads a stream into the facts of a message
    2: "ladder models",
    2.5: "prices tally",  # prices a ladder, and knows a model by any name; counts a request
    3: "features",
    3.5: "compile",  # asks how large a prompt is
    3.7: "budget",  # routing keeps to its ceilings
    3.8: "cascade",  # routing asks it where to begin
    3.9: "checks",  # the user's door to its checks
    4: "routing cache ledger",
    4.2: "forecast",  # prices what the ledger's entries would have cost
    4.5: "steps",  # what the core yields: values made of those below
    5: "leasing attempt judge checking triage account recall exchange batch trial",
    6: "catalogue command config upstream stores",  # what is run; what is kept of upstreams, settings, rows
    6.5: "heart statement reconcile",  # what beats beside the calls; how accounts stand in the stores
    6.6: "notify",
    7: "client build alone",
    8: "classify evaluate report simulate",
    9: "sdk gateway",
    10: "cli",
    TOP: "__init__ __main__",
}
RUNG_OF = {name: rung for rung, names in RUNGS.items() for name in names.split()}
NEIGHBOURS = {("exchange", "attempt"), ("exchange", "judge"), ("judge", "attempt"), ("account", "attempt")}
NEIGHBOURS |= {("report", "evaluate")}  # shows what came of it
NEIGHBOURS |= {("exchange", "account"), ("exchange", "triage"), ("triage", "attempt"), ("build", "client")}
NEIGHBOURS |= {("attempt", "leasing"), ("recall", "attempt"), ("recall", "account"), ("exchange", "recall")}
NEIGHBOURS |= {("checking", one) for one in ("account", "attempt", "judge")} | {("exchange", "checking")}
NEIGHBOURS |= {("batch", "attempt"), ("batch", "leasing")}
NEIGHBOURS |= {("trial", one) for one in ("account", "attempt", "exchange", "judge", "leasing")}
#: The edge, where an optional extra or a slow import may wait until it is needed.
LATE_IMPORTERS = {"cli", "sdk", "__init__"}


def violations(package: Path) -> Iterator[str]:
    """Yield each breach of the contract in a package's folder as `file:line: what`."""
    for path in sorted(package.rglob("*.py")):
        where = path.relative_to(package)
        importer = where.parts[0].removesuffix(".py")
        if importer not in RUNG_OF:
            yield f"{where}: {importer!r} is on no rung"
            continue
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        late = {node for function in functions for node in ast.walk(function)}
        for node in nodes:
            if isinstance(node, ast.Import | ast.ImportFrom):
                if node in late and importer not in LATE_IMPORTERS:
                    yield f"{where}:{node.lineno}: import inside a function"
                for imported in imported_by(node, package.name):
                    if not is_allowed(importer, imported):
                        yield f"{where}:{node.lineno}: {importer} may not import {imported}"


def imported_by(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[str]:
    """Yield what a node imports of the package: modules right under it, or `__init__` for itself."""
    if isinstance(node, ast.Import):
        paths = [alias.name for alias in node.names]
    elif node.level:
        paths = [f"{package}.a relative path"]
    elif node.module == package:
        paths = [f"{package}.{alias.name}" for alias in node.names]
    else:
        paths = [str(node.module)]
    for path in paths:
        root, _, rest = path.partition(".")
        if root == package:
            yield rest.partition(".")[0] or "__init__"


def is_allowed(importer: str, imported: str) -> bool:
    is_lower = RUNG_OF.get(imported, TOP) < RUNG_OF[importer]
    return is_lower or importer == imported or (importer, imported) in NEIGHBOURS


def test_our_own_modules_keep_the_contract() -> None:
    assert leastwise.__file__ is not None

    assert [] == list(violations(Path(leastwise.__file__).parent))


@pytest.mark.parametrize(
    ("file", "source", "found"),
    [
        ("money.py", "from leastwise.ladder import Tier", ["money.py:1: money may not import ladder"]),
        ("money.py", "import leastwise.cli.main", ["money.py:1: money may not import cli"]),
        ("money.py", "from leastwise import sse", ["money.py:1: money may not import sse"]),
        ("money.py", "from leastwise import Task", ["money.py:1: money may not import Task"]),
        ("money.py", "import leastwise", ["money.py:1: money may not import __init__"]),
        ("money.py", "from . import errors", ["money.py:1: money may not import a relative path"]),
        (
            "cache.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from leastwise.routing import Router",
            ["cache.py:3: cache may not import routing"],
        ),
        ("attempt.py", "import leastwise.exchange", ["attempt.py:1: attempt may not import exchange"]),
        ("ledger.py", "import leastwise.steps", ["ledger.py:1: ledger may not import steps"]),
        (
            "routing/rules.py",
            "import leastwise.stores",
            ["routing/rules.py:1: routing may not import stores"],
        ),
        ("report.py", "def f():\n    import json", ["report.py:2: import inside a function"]),
        ("report.py", "async def f():\n    import json", ["report.py:2: import inside a function"]),
        ("utils.py", "", ["utils.py: 'utils' is on no rung"]),
        ("exchange.py", "import leastwise.attempt, leastwise.judge, leastwise.steps", []),
        ("build.py", "from leastwise.client import run", []),
        ("routing/rules.py", "from leastwise.routing.types import Type", []),
        ("cli/main.py", "def f():\n    from leastwise.report import table", []),
        ("__init__.py", "from leastwise.ladder import Task", []),
        ("money.py", "import json\nfrom decimal import Decimal", []),
    ],
)
def test_the_contract_is_seen_broken(tmp_path: Path, file: str, source: str, found: list[str]) -> None:
    path = tmp_path / "leastwise" / file
    path.parent.mkdir(parents=True)
    path.write_text(source, encoding="utf-8")

    assert found == list(violations(tmp_path / "leastwise"))
