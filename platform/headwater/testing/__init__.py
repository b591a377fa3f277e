"""Tools to test headwater and what is built on it: random changes with a model beside them, faulty storage.

General layout: ``changes`` (streams of a keyed table and of bags, and the plain Python model that says what the
rows must be), ``faults`` (a storage whose calls fail where a test wants), ``writer`` (a small real writer process
that crash tests kill). Nothing here imports a test framework; everything random comes from a seed.
"""

from __future__ import annotations
