"""The schema registry's rules, without a catalog: schema versions in, answers out.

General layout, in reading order: ``promotion`` (which type may become which), ``compatibility`` (the seven modes),
``proposal`` (which field a proposed column is), ``diff``, then the ways out and in: ``avro``, ``json_schema`` and
``document`` (headwater's own JSON, and telling the three apart). ``log.subjects`` applies them to topics.
"""

from __future__ import annotations

from headwater.registry.compatibility import MODES, Mode, Rule, Violation, check, require
from headwater.registry.diff import Change, diff
from headwater.registry.proposal import Proposal, assign, settle

__all__ = ["MODES", "Change", "Mode", "Proposal", "Rule", "Violation", "assign", "check", "diff", "require", "settle"]
