"""Headwater in Jupyter: magics, result tables and live panels."""
