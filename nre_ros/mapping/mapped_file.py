"""A file whose bytes are mapped into memory, and what must not happen to it meanwhile."""

from __future__ import annotations

import os
import weakref
from pathlib import Path

from nre_ros.errors import MapError


class MappedFile:
    """Holds the file open, so that replacing it (``save_map``, ``mv``, ``rsync``) leaves its bytes alone, and tells
    when it is written to in place (``cp`` over it, ``scp``): its bytes are no longer those that were checked, and
    touching them behind the new end would kill the process (SIGBUS).

    :meth:`check` before reading narrows that to the moment between the two; nothing can close it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        self._seen = self._state()

    def check(self) -> None:
        """Raise MapError if the file was written to since it was opened."""
        try:
            same = self._state() == self._seen
        except OSError as error:
            raise MapError(f"map {self._path} cannot be read any more ({error}); load it again") from error
        if not same:
            raise MapError(
                f"map {self._path} was overwritten while in use; load it again, and replace maps by renaming "
                "(mv, rsync), not by copying over them"
            )

    def _state(self) -> tuple[int, int]:
        state = os.fstat(self._descriptor)
        return state.st_size, state.st_mtime_ns
