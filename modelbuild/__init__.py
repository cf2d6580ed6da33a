"""Build a trained model again, bit for bit."""
