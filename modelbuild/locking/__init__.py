"""From recipe to lock; one file a resolver."""
