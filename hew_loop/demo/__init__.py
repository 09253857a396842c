"""What `loop demo` plays: a small repository, its backlog, and the agent that works on it."""
