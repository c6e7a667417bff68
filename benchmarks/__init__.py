"""How fast, beside what else could have been used: `python -m benchmarks` prints the table."""
