"""Writing to the log and reading from it as a program: producers and consumers.

General layout, in reading order: ``producer`` (what a program holds) ← ``buffer`` (accepted rows, bounded) ←
``publish`` (one commit of them) with ``sequence`` (a batch exists once) and ``events`` (an event exists once);
``transaction`` (sends that appear together), ``frames``, ``files``, ``beside`` (rows as they come), ``convert`` (by
``values``, ``columns``, ``text``: the topic's columns), ``door`` (what may not enter), ``delivery`` (what comes back).
``consumer``, ``group``, ``member``, ``assignment``, ``process``, ``evaluation``: reading, alone and in groups.
"""

from __future__ import annotations
