"""Routing: which model answers, instead of which, and why; makes no call and opens nothing."""

from leastwise.routing.classifier import Classifier, Guess, load_classifier
from leastwise.routing.policy import BASELINE, Known, Policy, Preset, Rule, Switch, observing_line
from leastwise.routing.router import Fits, Router, Weighing, baseline_of
from leastwise.routing.signals import Signals
from leastwise.routing.types import OwnType, TypeTable
from leastwise.routing.words import Lexicon, Words, load_words

__all__ = [
    "BASELINE",
    "Classifier",
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
    "TypeTable",
    "Weighing",
    "Words",
    "baseline_of",
    "load_classifier",
    "load_words",
    "observing_line",
]
