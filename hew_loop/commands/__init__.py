"""One file per command: parse, call one function, render, exit code. No decision."""
