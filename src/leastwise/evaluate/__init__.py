"""Trying policies on recorded outcomes: what they would have been worth, beside honest controls."""

from leastwise.evaluate.outcomes import CHECKS, Outcomes, read_outcomes
from leastwise.evaluate.policies import Check, Column, Policy, Simulated, Way, undominated
from leastwise.evaluate.promise import Promise, promise
from leastwise.evaluate.replay import Line, Replay, Split, replay, splits_of

__all__ = [
    "CHECKS",
    "Check",
    "Column",
    "Line",
    "Outcomes",
    "Policy",
    "Promise",
    "Replay",
    "Simulated",
    "Split",
    "Way",
    "promise",
    "read_outcomes",
    "replay",
    "splits_of",
    "undominated",
]
