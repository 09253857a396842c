"""The part that acts: it performs what `core` decided and reports every result as one event."""
