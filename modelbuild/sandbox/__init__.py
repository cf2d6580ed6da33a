"""Where a stage runs: one file an isolation level, behind one small protocol."""
