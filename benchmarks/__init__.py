"""The numbers that hew-loop promises, each measured against its floor in the same run: `python -m benchmarks`."""
