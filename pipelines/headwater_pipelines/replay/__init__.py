"""Replay of a view: made anew beside the live one from positions of the log, compared with it, and promoted."""
