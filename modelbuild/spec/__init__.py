"""Pure data: recipe, lock, derivation, digests. Reads no clock, disk, network or environment."""
