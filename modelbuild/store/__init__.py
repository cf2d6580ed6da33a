"""Trees and digests on disk, and the store of what was fetched and built."""
