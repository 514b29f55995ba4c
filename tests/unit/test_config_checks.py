"""`[cascade]` and `[[check]]`: what they may say, and what only a trusted file may."""

from __future__ import annotations

from pathlib import Path

import pytest

from leastwise.cascade import CheckRow
from leastwise.config import CascadeOptions, Config, load, settings
from leastwise.errors import ConfigError

WHOLE = """
schema = 1
[cascade]
enabled = true
checks = ["truncation", "short", "judge"]
judge = "sonnet"
threshold = 4
unparsable = "accept"
escalate_to = "sonnet"
stream = "buffer"
overloaded = "next"
controls = 0.05
probes = 0
floor_s = 60
[[check]]
name = "short"
max_words = 9
[[check]]
name = "shape"
schema = { type = "object", properties = { share = { type = "number", maximum = 0.5 } } }
[[check]]
name = "tests"
command = "pytest -q"
timeout_s = 5
memory_mb = 100
"""


def read(folder: Path, text: str, *, is_found: bool = False) -> Config:
    """Read a file that is named, or one that lies in the working directory."""
    path = folder / "leastwise.toml"
    path.write_text(text)
    environ = {"XDG_CONFIG_HOME": str(folder / "none"), "LEASTWISE_STORE_URL": ":memory:"}
    return load(None if is_found else path, environ, cwd=folder)


def test_all_of_it(tmp_path: Path) -> None:
    config = read(tmp_path, WHOLE)

    assert (
        CascadeOptions(
            enabled=True,
            checks=("truncation", "short", "judge"),
            judge="sonnet",
            threshold=4.0,
            unparsable="accept",
            escalate_to="sonnet",
            stream="buffer",
            overloaded="next",
            controls=0.05,
            probes=0.0,
            floor_s=60.0,
        )
        == config.cascade
    )
    short, shape, tests = config.checks
    assert CheckRow("short", max_words=9) == short
    assert {"share": {"type": "number", "maximum": 0.5}} == (shape.schema or {})["properties"]
    assert isinstance((shape.schema or {})["properties"]["share"]["maximum"], float)
    assert CheckRow("tests", command="pytest -q", timeout_s=5.0, memory_mb=100) == tests
    shown = {setting.key: setting.plain for setting in settings(config)}
    assert "sonnet" == shown["cascade.judge"]
    assert {"name": "short", "max_words": 9} == shown["check.1"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[cascade]\nthreshold = 6", "cascade.threshold = 6: expected a score from 1 to 5"),
        ("[cascade]\ncontrols = 2", "cascade.controls = 2: expected a share from 0 to 1"),
        ('[cascade]\nescalate_to = "x"', 'cascade.escalate_to = "x": expected haiku, sonnet, opus'),
        ('[cascade]\nchecks = ["shema"]', "did you mean 'schema'"),
        ('[cascade]\nchecks = ["labels"]', "tools, judge, or the name of a [[check]]"),
        ('[[check]]\nname = "a"\nlabels = ["x"]\nfull = true', "full goes with pattern, and this has labels"),
        ('[[check]]\nname = "a"\nlabels = ["x"]\ntimeout_s = 5', "timeout_s goes with command or function"),
        ('[[check]]\nname = "a"\ncommand = "true"\nthreshold = 3', "threshold goes with function, and"),
        (
            '[[check]]\nname = "a"\nfunction = "m:f"\nfolder = "/tmp"',
            "folder goes with command, and this has",
        ),
        ('[[check]]\nname = "a"\ncommand = "true"\nfolder = "tests"', "write the whole path"),
        ('[cascade]\nstream = "later"', "expected auto, buffer, commit"),
        ('[[check]]\nname = "a"', "give exactly one of"),
        ('[[check]]\nname = "a"\nschema = 3', "expected a JSON Schema as a table"),
        ('[[check]]\nname = "a"\nfunction = "m:f"\nthreshold = "x"', "expected a number"),
        ('[[check]]\nname = "json"\nmax_words = 3', "that name is built in"),
        ('[[check]]\nname = "judge"\nmax_words = 3', "that name is built in"),
        ('[[check]]\nname = "a"\nmax_words = 3\n[[check]]\nname = "a"\nmax_words = 4', "given twice"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, text)
    assert said in str(refused.value)


@pytest.mark.parametrize("row", ['command = "rm -rf /"', 'function = "os:system"'])
def test_a_file_found_in_the_working_directory_may_run_nothing(tmp_path: Path, row: str) -> None:
    text = f'[[check]]\nname = "a"\n{row}'
    with pytest.raises(ConfigError, match="may run nothing; move it to"):
        read(tmp_path, text, is_found=True)
    assert 1 == len(read(tmp_path, text).checks)
    plain = '[[check]]\nname = "a"\nmax_words = 3'
    assert 1 == len(read(tmp_path, plain, is_found=True).checks)
