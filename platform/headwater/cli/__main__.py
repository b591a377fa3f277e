"""``python -m headwater.cli``: how the supervisor starts components without searching a PATH."""

from __future__ import annotations

from headwater.cli.main import main

main()
