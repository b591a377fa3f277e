"""What is promised: the bounds by which health is judged."""

from __future__ import annotations

from dataclasses import dataclass, fields

from headwater.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Slo:
    """What is promised of sources, topics, views and jobs: what is worse is a warning, or an error. 0: not judged."""

    lag_warn_s: float = 10.0
    """Far above the 0.4 s of a healthy stream on a busy machine: seconds of lag mean that something is wrong."""
    lag_error_s: float = 60.0
    fresh_warn_s: float = 60.0
    """How old what a reader sees may be: time since the source was last heard of, and what is not taken in yet."""
    fresh_error_s: float = 600.0
    dead_letters_warn: int = 1
    """Open dead letters of a topic: somebody has to look at each."""
    dead_letters_error: int = 1_000
    watermark_ahead_s: float = 3_600.0
    """A watermark that lies further ahead of the clock is an error: one wrong event time makes all others late."""
    late_warn_share: float = 0.01
    """Of a view's records, the share that came behind its watermark."""
    compared_within_s: float = 86_400.0
    """Every row of every view is compared with its query again within this time."""
    moved_within_s: float = 0.0
    """A view that has not moved for so long is called stale by Dagster's freshness policy: only for one whose source
    is never quiet, as ``fresh_error_s`` judges the others rightly."""
    source_compared_within_s: float = 604_800.0
    """Every captured table is compared with its source again within this time, row for row; 0: only when asked to."""
    report_every_s: float = 300.0
    """Between two reports to Dagster of what has moved and is as healthy as before: its event log has no retention."""

    def __post_init__(self) -> None:
        for each in fields(self):
            if getattr(self, each.name) < 0:
                raise ConfigError(
                    f"{each.name} = {getattr(self, each.name)} is out of range",
                    where="[slo]",
                    todo=f"Use 0 (not judged) or more; the default is {each.default}.",
                )
