"""What a job of continuous integration finds out about the models of a workspace."""
