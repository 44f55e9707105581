"""The work queue as its clients know it."""
