"""The only place that touches data files.

General layout: ``local`` is the seam (create-only files, fsync, checked reads), ``hot`` the encoding of one
batch inside a hot file.
"""

from __future__ import annotations

from headwater.storage.local import FileWriter, Storage

__all__ = ["FileWriter", "Storage"]
