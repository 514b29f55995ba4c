"""Way 3 with your own tests: haiku writes the code, your tests run it, a dearer tier writes anew what fails.

Needs ANTHROPIC_API_KEY, or ANTHROPIC_BASE_URL of `leastwise simulate` and any key. It runs what a model
wrote, in a Python of its own but not isolated: with a real key only where that can do no harm.
"""

import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import leastwise
from leastwise import Reply, Request, Task

TESTS = {"mean": "assert mean([1, 2, 6]) == 3", "median": "assert median([1, 2, 3, 4]) == 2.5"}
RUN = 'import re, sys; exec("".join(re.findall("```python(.*?)```", sys.stdin.read(), re.DOTALL)))'
RUN_OF = {name: [sys.executable, "-I", "-c", f"{RUN}; {test}"] for name, test in TESTS.items()}
# The second way: a command that has a name. The answer is on standard input, the exit code decides.
CONFIG = f"[[check]]\nname = 'median-test'\ncommand = '''{shlex.join(RUN_OF['median'])}'''"


def passes_my_tests(request: Request, reply: Reply) -> bool:
    """Tell whether the code in an answer passes the test of what was asked for."""
    command = RUN_OF["median" if "median" in request.messages[-1]["content"] else "mean"]
    ran = subprocess.run(command, input=reply.text.encode(), capture_output=True, timeout=10, check=False)  # noqa: S603 - our own
    return ran.returncode == 0


with TemporaryDirectory() as folder:
    Path(folder, "mine.toml").write_text(CONFIG, "utf-8")
    client = leastwise.Anthropic(leastwise=leastwise.Runtime.open(path=Path(folder, "mine.toml")))
    for name, check in ("mean", passes_my_tests), ("median", passes_my_tests), ("median", "median-test"):
        turns = [{"role": "user", "content": f"Write a Python function for the {name} of a list of numbers."}]
        reply = client.messages.create(model="haiku", max_tokens=4096, messages=turns, task=Task(check=check))
        outcome = leastwise.outcome(reply)
        for said in outcome.checks if outcome else ():
            if said.check in {"passes_my_tests", "median-test"}:
                print(f"{name:6}  {said.tier:6}  {said.check}: {said.words}")
