"""Whether a candidate may be used, and whether a champion stays: evidence in, verdict out. Pure."""
