"""Run the benchmarks named, or all: one line for each number, exit code 1 when one is over its goal."""

from __future__ import annotations

import argparse
import sys

from benchmarks import backlog, efficiency, gate, memory, overhead, startup, touch

BENCHMARKS = {
    "overhead": overhead.measure,
    "efficiency": efficiency.measure,
    "gate": gate.measure,
    "backlog": backlog.measure,
    "memory": memory.measure,
    "startup": startup.measure,
    "touch": touch.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all without one")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that they work, says nothing of speed")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in BENCHMARKS]:
        parser.error(f"there is no benchmark {unknown[0]!r} (known: {', '.join(BENCHMARKS)})")
    all_ok = True
    for name in given.names or BENCHMARKS:
        for measured in BENCHMARKS[name](quick=given.quick):
            print(measured.line(), flush=True)
            all_ok = all_ok and measured.is_ok
    return 0 if all_ok or given.quick else 1


sys.exit(main())
