"""Way 2, signals: sizes, code and tools choose the tier; no extra call, no word of the prompt weighed.

Needs ANTHROPIC_API_KEY, or ANTHROPIC_BASE_URL of `leastwise simulate` and any key.
"""

import os

import leastwise
from leastwise import Task

os.environ["LEASTWISE_CLASSIFIER_LEARNED"] = "false"  # the type of a task would decide before its size

SEARCH = {
    "name": "search",
    "description": "Search the handbook.",
    "input_schema": {"type": "object", "properties": {"words": {"type": "string"}}},
}
CODE = "def total(items): return sum(item.price for item in items)"
ASKS = [
    ("Capital of Austria?", Task(expected_output_words=3), []),
    ("Names for a grey cat, ten of them.", Task(expected_output_tokens=60), []),
    ("Tell a long story about a grey cat.", Task(expected_output_words=900), []),
    (f"A name for this? {CODE}", Task(expected_output_tokens=10), []),
    (f"Tests for this, all cases: {CODE}", Task(expected_output_tokens=1500), []),
    ("Days of leave in the first year?", Task(expected_output_tokens=40), [SEARCH]),
    ("Days in a leap year?", Task(), []),  # the size of the answer is not told: nothing is known
]

client = leastwise.Anthropic()

for prompt, task, tools in ASKS:
    message = client.messages.create(
        model="auto", max_tokens=4096, messages=[{"role": "user", "content": prompt}], tools=tools, task=task
    )
    outcome = leastwise.outcome(message)
    assert outcome is not None
    print(f"{prompt[:36]:36}  {outcome.tier:6}  {outcome.reasons[-1]}")
    print(f"{'':36}  {outcome.input_tokens} in, {outcome.output_tokens} out, ${outcome.cost_usd:.6f}")
