"""Benchmarks: each ``python -m benchmarks.NAME [--quick] [--json FILE] [--keep]`` prints one table of figures."""
