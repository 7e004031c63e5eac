"""The benchmarks of the README's budgets, side by side with the peers in the same run: `make bench`.

Nothing here is collected as a timed test: machines differ, ratios on one machine do not.
"""
