"""Checks of answers, for `Task(check=...)`: built in, made of a few words, or put together of others.

    Task(check=checks.labels("spam", "not spam"))
    Task(check=[checks.json, checks.length(max_words=200), my_test])

A check of your own is any function of (request, reply) that returns True or False, a score, or a `Verdict`.
What each of these looks at is in docs/cascade.md; all are free of cost.
"""

from leastwise.cascade.checks import empty, labels, language, length, refusal, regex, stop_reason, truncation
from leastwise.cascade.combine import all_of, first_of
from leastwise.cascade.shapes import json, schema, schema_of, tools

__all__ = [
    "all_of",
    "empty",
    "first_of",
    "json",
    "labels",
    "language",
    "length",
    "refusal",
    "regex",
    "schema",
    "schema_of",
    "stop_reason",
    "tools",
    "truncation",
]
