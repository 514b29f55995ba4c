"""What the documents say is what the program does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from leastwise.cli import main
from leastwise.config import load

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = (
    README,
    *((ROOT / "docs" / f"{page}.md").read_text("utf-8") for page in ("budgets", "cache", "cascade")),
)
TOML_BLOCKS = [
    dedent(block)
    for page in PAGES
    for block in re.findall(r"^ *```toml\n(.*?)^ *```$", page, re.DOTALL | re.MULTILINE)
]
#: What `docs/make.py` writes -> its function there.
GENERATED = {
    "cli.md": "cli_page",
    "configuration.md": "configuration_page",
    "cascade.md": "cascade_page",
    "break-even.svg": "break_even_svg",
}


@pytest.mark.parametrize("file", GENERATED)
def test_generated_pages_are_up_to_date(file: str) -> None:
    program = f"import runpy; print(runpy.run_path('docs/make.py')['{GENERATED[file]}'](), end='')"
    environ = {**os.environ, "COLUMNS": "80", "PYTHONPATH": str(ROOT / "src")}
    ran = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program], cwd=ROOT, env=environ, check=True, capture_output=True, text=True
    )
    assert ran.stdout == (ROOT / "docs" / file).read_text("utf-8"), "run: python docs/make.py"


def test_the_pages_have_configurations() -> None:
    assert len(TOML_BLOCKS) >= 6


@pytest.mark.parametrize("block", TOML_BLOCKS, ids=range(len(TOML_BLOCKS)))
def test_configurations_of_the_pages_load(block: str, tmp_path: Path) -> None:
    path = tmp_path / "leastwise.toml"
    path.write_text(block, "utf-8")
    assert load(path, {}, cwd=tmp_path).files == (path,)


def test_links_inside_the_repository_lead_somewhere() -> None:
    for page in (
        ROOT / "README.md",
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "CHANGELOG.md",
        ROOT / "SECURITY.md",
    ):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_shows_what_the_demo_prints(capsys: pytest.CaptureFixture[str]) -> None:
    (shown,) = re.findall(r"^\$ make demo\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert main(["demo"]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert rest == shown.splitlines()[1:]
    assert re.sub(r"prices of .*", "", first) == re.sub(r"prices of .*", "", shown.splitlines()[0])
