"""Where tasks live. Every tracker satisfies `trackers.base.Tracker`."""
