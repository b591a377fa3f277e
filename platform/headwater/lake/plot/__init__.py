"""Plots: what the engine found, as bounded numbers and exact texts, placed once for a page, a file and paper.

query ──▶ encoding (which column is what) ──▶ points (aggregated in DuckDB, at most some thousand)
      ──▶ picture (where everything stands) ──▶ SVG here, or the same elements patched into a live page
"""
