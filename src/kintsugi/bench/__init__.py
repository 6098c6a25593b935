"""Benchmarks: many trials, kept so that a crash costs at most the one in flight."""

from kintsugi.bench.salvage import Salvaged
from kintsugi.bench.schema_sql import StoreError
from kintsugi.bench.store import Record, Store
from kintsugi.bench.trial import Trial, facts, trial_hash

__all__ = ["Record", "Salvaged", "Store", "StoreError", "Trial", "facts", "trial_hash"]
