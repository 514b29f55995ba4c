"""The programs in examples/, run as a user runs them, against the simulated upstream."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from leastwise.simulate import serve

EXAMPLES = Path(__file__).parents[2] / "examples"

SHOWN = {
    "01_task_routing.py": """\
Task:    classify this email as spam or not spam (simple)
Why:     type: classify ("classify this" in the description)
Model:   claude-haiku-5-5
Tokens:  26 in, 30 out, ~$0.000018
Result:  [simulated] spam

Task:    detect the language, answer with its English name (simple)
Why:     type: language ("detect the language" in the description)
Model:   claude-haiku-5-5
Tokens:  29 in, 31 out, ~$0.000018
Result:  [simulated] English

Task:    summarise in one sentence (standard)
Why:     type: summarise ("summarise" in the description)
Model:   claude-sonnet-5-5
Tokens:  32 in, 358 out, ~$0.003644
Result:  [simulated] The text makes three points. First, most of the

Task:    design a database schema with its trade-offs (complex)
Why:     type: design ("design" in the description)
Model:   claude-opus-5-5
Tokens:  29 in, 2248 out, ~$0.045076
Result:  [simulated] # Design ## 1 Keep one writer and let readers w

Task:    classify the risk in this clause (complex)
Why:     the caller says complex
Model:   claude-opus-5-5
Tokens:  23 in, 31 out, ~$0.000712
Result:  [simulated] billing

Total:   ~$0.049468; all of it on the top tier ~$0.054516. Same quality: not measured.
""",
    "02_signals.py": """\
Capital of Austria?                   haiku   signals: ~# tokens in, 4 out, no code, no tools
                                      7 in, 158 out, $0.000080
Names for a grey cat, ten of them.    haiku   signals: ~# tokens in, 60 out, no code, no tools
                                      12 in, 158 out, $0.000080
Tell a long story about a grey cat.   sonnet  signals: ~# tokens in, 1,170 out, no code, no tools
                                      12 in, 302 out, $0.003044
A name for this? def total(items): r  sonnet  signals: ~# tokens in, 10 out, code
                                      25 in, 302 out, $0.003070
Tests for this, all cases: def total  opus    signals: ~# tokens in, 1,500 out, code
                                      28 in, 158 out, $0.003272
Days of leave in the first year?      sonnet  signals: ~# tokens in, 40 out, tools
                                      52 in, 302 out, $0.003124
Days in a leap year?                  opus    unsure, so not cheap: baseline claude-opus-5-5
                                      7 in, 158 out, $0.003188
""",
    "03_cascade.py": """\
What is the capital of France?
  quality 5/5, accepted
  claude-haiku-5-5 $0.000860, tokens haiku 10 + 158, sonnet 340 + 10
  [simulated] Here is a short answer. It depends on two thing
Summarise what a mutex is for, in one paragraph.
  quality 5/5, accepted
  claude-haiku-5-5 $0.001013, tokens haiku 16 + 214, sonnet 402 + 10
  [simulated] The text makes three points. First, most of the
Compare quicksort and merge sort for a file that does not fit into memory.
  quality 5/5, accepted
  claude-haiku-5-5 $0.001744, tokens haiku 25 + 495, sonnet 697 + 10
  [simulated] Let us go through it. ## 1 Suppose the claim ho
Prove that there is no largest prime number.
  quality 1/5, escalating
  claude-opus-5-5 $0.010674, tokens haiku 15 + 38, sonnet 297 + 10, opus 15 + 495
  [simulated] Let us go through it. ## 1 Suppose the claim ho
$0.014291; opus for all of them $0.027504
""",
    "03b_own_tests.py": """\
mean    haiku   passes_my_tests: returned True
median  haiku   passes_my_tests: returned False
median  sonnet  passes_my_tests: returned True
median  haiku   median-test: exit code 1
median  sonnet  median-test: exit code 0
""",
    "05_cache.py": """\
[API]   $0.000080  What is the capital of France?
[API]   $0.000080  What is 2 + 2?
[CACHE] $0.000000  What is the capital of France?
[API]   $0.000080  Who wrote Romeo and Juliet?
[CACHE] $0.000000  What is 2 + 2?
[CACHE] $0.000000  What is the capital of France?
[API]   $0.000080  What is  2 + 2?
3 of 7 from the cache (43%), 3 calls and $0.000240 saved
""",
    "06_budget.py": """\
          opus    $0.003196, $0.020304 left  Explain how a lock works.
critical  opus    $0.003236, $0.017068 left  Review this clause: either party may end it at any time.
          opus    $0.003188, $0.013880 left  What is a hash table?
          opus    $0.003208, $0.010672 left  Explain recursion with an example.
          opus    $0.003192, $0.007480 left  What is a linked list?
critical  opus    $0.003224, $0.004256 left  Assess the risk of this change to our payments.
          sonnet  $0.000636, $0.003620 left  What does a compiler do?
          sonnet  $0.000634, $0.002986 left  Define polymorphism.
critical  opus    $0.000668, $0.002318 left  Is it safe to take two of these tablets every hour?
          haiku   $0.000032, $0.002286 left  What is a binary tree?
          haiku   $0.000032, $0.002255 left  What is a closure?

Stepped down:
  opus -> sonnet at 82% (above 70%)
  opus -> sonnet at 85% (above 70%)
  opus -> haiku at 90% (above 90%)
  opus -> haiku at 90% (above 90%)
""",
}


def test_every_example_is_here() -> None:
    assert sorted(SHOWN) == sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_an_example_prints_what_it_promises(name: str, tmp_path: Path) -> None:
    with serve() as server:
        environ = {
            **os.environ,
            "ANTHROPIC_API_KEY": "simulated",
            "ANTHROPIC_BASE_URL": server.url,
            "LEASTWISE_CASCADE_CONTROLS": "0",  # a planted answer now and then would be one call more
            "PYTHONIOENCODING": "utf-8",
            "XDG_CONFIG_HOME": str(tmp_path),
            "XDG_STATE_HOME": str(tmp_path),
        }
        ran = subprocess.run(  # noqa: S603 - a program of this repository
            [sys.executable, str(EXAMPLES / name)],
            check=True,
            capture_output=True,
            encoding="utf-8",
            cwd=tmp_path,
            env=environ,
        )

    # How long a prompt is guessed to be is no promise of an example.
    assert (SHOWN[name], "") == (re.sub(r"~[\d,]+ tokens in", "~# tokens in", ran.stdout), ran.stderr)


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_an_example_is_short(name: str) -> None:
    assert 40 > len((EXAMPLES / name).read_text("utf-8").splitlines())
