"""Where workers run. The same worker function runs in all of them."""
