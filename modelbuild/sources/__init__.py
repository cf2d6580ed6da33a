"""Where data comes from: one file a kind of input, behind one small protocol."""
