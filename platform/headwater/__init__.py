"""Headwater: an embedded log of changes on one machine, and SQL over it."""
