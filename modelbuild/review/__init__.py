"""What changed between two locks, why something is built again, and what was built so far."""
