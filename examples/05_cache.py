"""Way 5, the cache: a question that was answered before costs nothing.

Needs ANTHROPIC_API_KEY, or ANTHROPIC_BASE_URL of `leastwise simulate` and any key.
"""

from decimal import Decimal

import leastwise
from leastwise import Task

ASKED = [
    "What is the capital of France?",
    "What is 2 + 2?",
    "What is the capital of France?",
    "Who wrote Romeo and Juliet?",
    "What is 2 + 2?",
    "What is the capital of France?",
    "What is  2 + 2?",  # one space more is another request: nothing is taken for the same
]

client = leastwise.Anthropic(mode="enforce")  # one model, asked by its name: what a hit saves is its price
hits, saved = 0, Decimal(0)
for question in ASKED:
    message = client.messages.create(
        model="claude-haiku-5-5",
        max_tokens=1024,
        messages=[{"role": "user", "content": question}],
        task=Task(cache=True),
    )
    outcome = leastwise.outcome(message)
    assert outcome is not None
    print(f"{'[CACHE]' if outcome.from_cache else '[API]  '} ${outcome.cost_usd:.6f}  {question}")
    hits += outcome.from_cache
    saved += outcome.saved_usd if outcome.from_cache else 0
print(f"{hits} of {len(ASKED)} from the cache ({hits / len(ASKED):.0%}), {hits} calls and ${saved:.6f} saved")
