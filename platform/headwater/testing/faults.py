"""A storage whose next call fails as a bad disk would let it fail: once, then never again."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Literal

from headwater.storage import FileWriter, Storage
from headwater.storage.local import named_errors

Call = Literal["create", "write", "fsync", "fsync_folder"]


class FaultyStorage(Storage):
    """``fail(call)`` arms one failure; ``failed`` counts those that happened. All else is the real thing."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.failed = 0
        self._armed: Call | None = None
        self._code = 0

    def fail(self, call: Call, *, full: bool = False) -> None:
        """The next ``call`` fails with EIO, or with ENOSPC when ``full``."""
        self._armed, self._code = call, errno.ENOSPC if full else errno.EIO

    def create(self, name: str) -> FileWriter:
        self.meet("create", name)
        return _FaultyWriter(self, name)

    def sync_folder(self, folder: Path) -> None:
        self.meet("fsync_folder", str(folder))
        super().sync_folder(folder)

    def meet(self, call: Call, name: str) -> None:
        """Fail here if this call is armed."""
        if call == self._armed:
            self._armed = None
            self.failed += 1
            with named_errors(name):
                raise OSError(self._code, os.strerror(self._code))


class _FaultyWriter(FileWriter):
    storage: FaultyStorage

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self.storage.meet("write", self.name)
        return super().write(data)

    def seal(self) -> None:
        self.storage.meet("fsync", self.name)
        super().seal()
