"""Processes for tests that begin in milliseconds: forked from a server that has imported what they use.

``FORKS`` is a ``multiprocessing`` context; a function for it is at a module's top level. The server's environment
is the test run's own: crash points are given by ``failpoint.follow``.
"""

from __future__ import annotations

import multiprocessing

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["headwater.testing.preloaded"])
