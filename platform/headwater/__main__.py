"""``python -m headwater``: the same command line as ``headwater``."""

from __future__ import annotations

from headwater.cli.main import main

if __name__ == "__main__":
    main()
