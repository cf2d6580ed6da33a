"""Compare two outputs, and hold the lock against the world."""
