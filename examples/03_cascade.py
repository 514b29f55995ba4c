"""Way 3, cheap first: haiku answers, sonnet judges, and what does not pass is answered by opus.

Needs ANTHROPIC_API_KEY, or ANTHROPIC_BASE_URL of `leastwise simulate` and any key.
"""

import os
from decimal import Decimal

import leastwise
from leastwise import Task

# Another tier than the one that answers: a model's word on itself accepts nothing before it is calibrated.
os.environ["LEASTWISE_CASCADE_JUDGE"] = "sonnet"

ASKED = [
    "What is the capital of France?",
    "Summarise what a mutex is for, in one paragraph.",
    "Compare quicksort and merge sort for a file that does not fit into memory.",
    "Prove that there is no largest prime number.",
]

client = leastwise.Anthropic()
spent = instead = Decimal(0)
for question in ASKED:
    turns = [{"role": "user", "content": question}]
    task = Task(check="judge", threshold=3, escalate_to="opus")
    message = client.messages.create(model="haiku", max_tokens=4096, messages=turns, task=task)
    outcome = leastwise.outcome(message)
    assert outcome is not None
    score = next(check.score for check in outcome.checks if check.score is not None)
    used = outcome.usage_by_tier.items()
    tokens = ", ".join(f"{tier} {n['input_tokens']} + {n['output_tokens']}" for tier, n in used)
    text = "".join(block.text for block in message.content if block.type == "text")
    print(f"{question}\n  quality {score:.0f}/5, {'escalating' if outcome.escalated else 'accepted'}")
    print(f"  {outcome.model} ${outcome.cost_usd:.6f}, tokens {tokens}")
    print(f"  {' '.join(text.split())[:59]}")
    spent += outcome.cost_usd
    instead += outcome.baseline_usd
print(f"${spent:.6f}; opus for all of them ${instead:.6f}")
