"""A sweep in a process of its own: `driver.py STORE OPTIONS SEEDS`, the latter two as JSON."""

import json
import sys

import faulty

from superpos.store import Store
from superpos.sweep import SweepFailed, sweep

if __name__ == "__main__":
    root, options, seeds = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
    conditions = [faulty.Condition(seed) for seed in seeds]
    try:
        sweep(faulty, conditions, store=Store(root), progress=False, **options)
    except SweepFailed as failed:
        sys.exit(str(failed))
