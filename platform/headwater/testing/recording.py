"""A workload's run, recorded call by call, and every disk that a power cut could have left of it."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from headwater.testing import power
from headwater.testing.power import Cut, Event, Mode
from headwater.testing.shim import Server
from headwater.testing.workload import check_folder
from headwater.testing.workloads import WORKLOADS

TOLD = "acknowledged"
RUN = "headwater.testing.workloads:run"


class Recorded:
    """A recorded run of a workload in ``folder / "disk"``, and what could be left of it."""

    def __init__(self, server: Server, folder: Path, name: str, seed: int) -> None:
        self.server = server
        self.folder = folder
        self.name = name
        self.seed = seed
        self.disk = folder / "disk"
        self.disk.mkdir(parents=True)
        self.images = 0

    def run(
        self, plan: str = "", *, again: bool = False, rules: tuple[str, ...] = (), mutation: str | None = None
    ) -> int:
        """Run the workload in a process of its own, and go on recording; its exit code, negative for a signal."""
        arguments = {"name": self.name, "folder": self.disk / "lake", "acknowledged": self.disk / TOLD}
        exit_code, _ = self.server.run(
            RUN,
            {**arguments, "seed": self.seed, "again": again},
            root=self.disk,
            trace_file=self.folder / "trace",
            rules=rules,
            plan=plan,
            mutation=mutation,
        )
        return exit_code

    def told(self) -> list[str]:
        """What the world has heard so far."""
        told = self.disk / TOLD
        return told.read_text().split() if told.exists() else []

    def check(self, *, complete: bool) -> None:
        """The oracle, on a copy: what it does to the lake is in no record."""
        copy = self.folder / "copy"
        (self.disk / "lake").mkdir(exist_ok=True)
        shutil.copytree(self.disk / "lake", copy)
        check_folder(WORKLOADS[self.name], copy, self.seed, self.told(), complete=complete)
        shutil.rmtree(copy)

    def events(self) -> list[Event]:
        return power.read_trace(self.folder / "trace")

    def cut(self, at: Collection[int], modes: Collection[Mode], *, rows: int = 0, goes_on: int = 0) -> int:
        """Cut the power at these points and look; how many different disks there were.

        All are opened and verified; of every ``rows``-th each row is compared, and on every ``goes_on``-th the
        workload runs on to its end.
        """
        for cut in power.cuts(self.events(), self.disk, at, modes, TOLD, self.seed):
            self.images += 1
            self._look(cut, rows=_each(rows, self.images), goes_on=_each(goes_on, self.images))
        return self.images

    def _look(self, cut: Cut, *, rows: bool, goes_on: bool) -> None:
        folder = self.folder / "image"
        folder.mkdir()
        cut.write(folder)
        told = cut.told.decode().split()
        workload = WORKLOADS[self.name]
        try:
            check_folder(workload, folder / "lake", self.seed, told, complete=False, rows=rows)
            if goes_on:
                (folder / TOLD).write_bytes(cut.told)
                workload.run(folder / "lake", folder / TOLD, self.seed, True)
                told = (folder / TOLD).read_text().split()
                check_folder(workload, folder / "lake", self.seed, told, complete=True)
        except Exception as error:
            error.add_note(f"after a power cut behind {cut.event} calls, {cut.mode} of the rest kept: {told} was told")
            raise
        shutil.rmtree(folder)


def _each(step: int, number: int) -> bool:
    return step > 0 and number % step == 0
