"""Stream jobs: Python functions from frames of changes to frames of output, run exactly once."""
