"""A long run under faults: mixed traffic, one fault after the other, invariants checked throughout.

`make soak MINUTES=15 SEED=7`, or `PYTHONPATH=tests .venv/bin/python -m soak --help`.
"""
