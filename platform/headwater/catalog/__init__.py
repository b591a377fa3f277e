"""What exists and what is visible: one SQLite database, changed by one transaction at a time.

General layout: ``tables`` (columns), ``migrations`` (versions of them), ``queue_lock`` (writers in order of
arrival), ``catalog`` (the seam: read and write transactions), ``records`` (what the rest of the code sees),
``live`` (heartbeats and display figures, in a second file that may be lost).
"""

from __future__ import annotations
