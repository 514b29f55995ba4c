"""Cheap first, checked, and worth it: what is asked of an answer, and what follows. Values only, no I/O."""

from leastwise.cascade.alone import Cascade
from leastwise.cascade.calibration import TARGET, Calibration, alarm
from leastwise.cascade.combine import as_check, inquire, read_finding, settle
from leastwise.cascade.gate import Gate, GateSays, gate_for
from leastwise.cascade.intervals import SURE, Rate, interval, lower_bound
from leastwise.cascade.plan import (
    HIGHEST_SCORE,
    JUDGE,
    LOWEST_SCORE,
    NO_EVIDENCE,
    NO_PLAN,
    THRESHOLD,
    Check,
    Evidence,
    Overloaded,
    Plan,
    Rung,
    Trial,
    Unparsable,
    stamp_of,
)
from leastwise.cascade.rows import BUILT_IN, CheckRow, made_of

__all__ = [
    "BUILT_IN",
    "HIGHEST_SCORE",
    "JUDGE",
    "LOWEST_SCORE",
    "NO_EVIDENCE",
    "NO_PLAN",
    "SURE",
    "TARGET",
    "THRESHOLD",
    "Calibration",
    "Cascade",
    "Check",
    "CheckRow",
    "Evidence",
    "Gate",
    "GateSays",
    "Overloaded",
    "Plan",
    "Rate",
    "Rung",
    "Trial",
    "Unparsable",
    "alarm",
    "as_check",
    "gate_for",
    "inquire",
    "interval",
    "lower_bound",
    "made_of",
    "read_finding",
    "settle",
    "stamp_of",
]
