"""The page of `modelbuild report`: records in, one HTML document out."""
