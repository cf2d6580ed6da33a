"""Plan and build the stages of a recipe."""
