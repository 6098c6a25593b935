"""How a model holds up: protocols of test conditions, the cached evaluator, results with intervals, the report."""

from kintsugi.evaluation.evaluator import Outcome, predict_conditions
from kintsugi.evaluation.intervals import Interval, paired_difference, seed_interval
from kintsugi.evaluation.protocols import PROTOCOLS, Condition, Protocol, get_protocol
from kintsugi.evaluation.results import Results, evaluate, examples

__all__ = [
    "PROTOCOLS",
    "Condition",
    "Interval",
    "Outcome",
    "Protocol",
    "Results",
    "evaluate",
    "examples",
    "get_protocol",
    "paired_difference",
    "predict_conditions",
    "seed_interval",
]
