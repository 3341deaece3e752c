"""Benchmarks: `pytest benchmarks/`, and `python -m benchmarks.report FILE.json` for a table and a picture."""
