"""The pipeline worker: state, steps, publishing."""
