"""Routing: which model answers, instead of which, and why; makes no call and opens nothing."""

from leastwise.routing.classifier import NONE, Classifier, Guess, load_classifier
from leastwise.routing.policy import BASELINE, Known, Policy, Preset, Rule, Switch, observing_line
from leastwise.routing.router import Fits, Router, baseline_of
from leastwise.routing.signals import Signals
from leastwise.routing.telling import Explanation, Teller
from leastwise.routing.types import UNLIKELY, OwnType, TypeTable
from leastwise.routing.warmth import Warmth, as_read, lost_tokens, warmth_of
from leastwise.routing.weighing import warmths_of
from leastwise.routing.words import Lexicon, Words, load_words

__all__ = [
    "BASELINE",
    "NONE",
    "UNLIKELY",
    "Classifier",
    "Explanation",
    "Fits",
    "Guess",
    "Known",
    "Lexicon",
    "OwnType",
    "Policy",
    "Preset",
    "Router",
    "Rule",
    "Signals",
    "Switch",
    "Teller",
    "TypeTable",
    "Warmth",
    "Words",
    "as_read",
    "baseline_of",
    "load_classifier",
    "load_words",
    "lost_tokens",
    "observing_line",
    "warmth_of",
    "warmths_of",
]
