"""Way 1, task routing: say what is to be done, and that decides which tier does it.

Needs ANTHROPIC_API_KEY, or ANTHROPIC_BASE_URL of `leastwise simulate` and any key.
"""

from decimal import Decimal

import leastwise
from leastwise import Task

TASKS = [
    (Task("classify this email as spam or not spam"), "Win $1000 now!!! Click here to claim."),
    (Task("detect the language, answer with its English name"), "Der Zug fährt heute von Gleis sieben."),
    (
        Task("summarise in one sentence"),
        "The library closes at five from 1 December, for the heating is mended.",
    ),
    (Task("design a database schema with its trade-offs"), "Bookings of cargo bikes at sixty stations."),
    (Task("classify the risk in this clause", complexity="complex"), "Either party may end it at any time."),
]

client = leastwise.Anthropic()
spent = instead = Decimal(0)
for task, prompt in TASKS:
    turns = [{"role": "user", "content": f"{task.description}: {prompt}"}]
    message = client.messages.create(model="auto", max_tokens=4096, messages=turns, task=task)
    outcome = leastwise.outcome(message)
    assert outcome is not None
    text = "".join(block.text for block in message.content if block.type == "text")
    print(f"Task:    {task.description} ({outcome.complexity})")
    print(f"Why:     {outcome.reasons[-1]}")
    print(f"Model:   {outcome.model}")
    print(f"Tokens:  {outcome.input_tokens} in, {outcome.output_tokens} out, ~${outcome.cost_usd:.6f}")
    print(f"Result:  {' '.join(text.split())[:59]}\n")
    spent += outcome.cost_usd
    instead += outcome.baseline_usd
print(f"Total:   ~${spent:.6f}; all of it on the top tier ~${instead:.6f}. Same quality: not measured.")
