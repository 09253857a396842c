"""hew-loop: drain an issue backlog with coding agents, in parallel, and land only what passes."""

__version__ = "0.1.0"
