"""Way 6, a budget: the dear tier while there is money for it, and for what is critical after that, too.

Needs ANTHROPIC_API_KEY, or ANTHROPIC_BASE_URL of `leastwise simulate` and any key.
"""

import leastwise
from leastwise import Task

ASKED = [  # is it critical?
    (False, "Explain how a lock works."),
    (True, "Review this clause: either party may end it at any time."),
    (False, "What is a hash table?"),
    (False, "Explain recursion with an example."),
    (False, "What is a linked list?"),
    (True, "Assess the risk of this change to our payments."),
    (False, "What does a compiler do?"),
    (False, "Define polymorphism."),
    (True, "Is it safe to take two of these tablets every hour?"),
    (False, "What is a binary tree?"),
    (False, "What is a closure?"),
]

client = leastwise.Anthropic(budget_usd=0.0235)
for is_critical, question in ASKED:
    message = client.messages.create(
        model="opus",
        max_tokens=200,
        messages=[{"role": "user", "content": question}],
        task=Task(critical=is_critical),
    )
    outcome = leastwise.outcome(message)
    assert outcome is not None
    mark, left = "critical" if is_critical else "", outcome.budget_remaining_usd
    print(f"{mark:8}  {outcome.tier:6}  ${outcome.cost_usd:.6f}, ${left:.6f} left  {question}")

print("\nStepped down:")
for *_, down in reversed(client.leastwise.store.step_downs()):
    print(f"  {down.before} -> {down.after} at {down.percent:.0f}% ({down.trigger})")
