"""Keyframes on disk as they come, so that a map being made survives whatever ends the process.

A journal is a folder: ``session.json`` says what its keyframes were made of and with, and each keyframe is a file.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import overload

from nre_ros.config import BuilderConfig, parameters
from nre_ros.errors import MapError
from nre_ros.features import FeatureNetwork
from nre_ros.mapping.builder import Keyframe
from nre_ros.mapping.keyframe_file import PART, byte_size, read_keyframe, schema, write_keyframe, write_whole

NAME = "journal"
"""Of the folder, inside the folder of the map."""

_SESSION = "session.json"
_REMOVED = ".{}-{}-removed"
"""What a journal is renamed to before it is deleted file by file."""

_KEPT_ASIDE = 2
"""Journals set aside that stay beside the one in use: the newest."""

_ELSEWHERE = {"device", "weights", "refine_poses", "pose_sigma_deg", "pose_sigma_position"}
"""Parameters that change no keyframe, or that the network's hash tells."""


class OtherSession(MapError):
    """The journal that was found belongs to other input, another network or other parameters."""


def session_facts(network: FeatureNetwork, config: BuilderConfig, **source: str) -> dict[str, str]:
    """All that keyframes must share to make one map; ``source`` says where they come from."""
    chosen = {p.name: str(p.default) for p in parameters(config) if p.name not in _ELSEWHERE}
    return {**source, **chosen, "network": f"{network.name} {network.weights_hash}", "keyframe format": schema()}


class KeyframeJournal(Sequence[Keyframe]):
    """The keyframes of a builder: on disk and memory-mapped where they can be written, in memory until then.

    Takes up the keyframes of an interrupted session with the same ``facts``. Raises OtherSession when they differ,
    MapError when another process has the journal or the folder cannot be written. Without a folder all keyframes
    stay in memory.
    """

    def __init__(self, folder: Path | None, facts: Mapping[str, str], tell: Callable[[str], None] = print) -> None:
        self.folder = folder
        self._facts = dict(facts)
        self._tell = tell
        self._items: list[Keyframe] = []
        self._waiting: list[tuple[int, int]] = []
        self._next = 0
        self._lock: int | None = None
        self.bytes_in_memory = 0
        """Of the keyframes that wait to be written."""
        self.trouble = ""
        """Why keyframes wait; empty when all are on disk."""
        self._made_parent = folder is not None and not folder.parent.exists()
        if folder is not None:
            self._open(folder)
        self.resumed = len(self._items)
        """Keyframes that were found at the start."""
        self._camera_unchecked = self.resumed > 0

    @overload
    def __getitem__(self, index: int) -> Keyframe: ...
    @overload
    def __getitem__(self, index: slice) -> list[Keyframe]: ...
    def __getitem__(self, index: int | slice) -> Keyframe | list[Keyframe]:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Keyframe]:
        return iter(self._items)

    @property
    def waiting(self) -> int:
        """Keyframes that are in memory only."""
        return len(self._waiting)

    def append(self, keyframe: Keyframe) -> None:
        """Keep a keyframe. Never raises: where it cannot be written it waits in memory, and ``trouble`` says why."""
        if self._camera_unchecked and keyframe.camera not in {known.camera for known in self._items}:
            self._begin_anew()
        self._camera_unchecked = False
        self._waiting.append((len(self._items), self._next))
        self._items.append(keyframe)
        self._next += 1
        self.bytes_in_memory += byte_size(keyframe)
        self.flush()

    def flush(self) -> bool:
        """Try to write what waits; True when nothing waits any more."""
        while self._waiting and self.folder is not None:
            index, number = self._waiting[0]
            file = self.folder / f"{number:06d}.safetensors"
            try:
                with _undisturbed():
                    write_keyframe(self._items[index], file)
                    written = read_keyframe(file)
            except (OSError, MapError) as error:
                self.trouble = f"keyframes cannot be written to {self.folder}: {error}"
                return False
            self.bytes_in_memory -= byte_size(written)
            self._items[index] = written
            self._waiting.pop(0)
        self.trouble = ""
        return not self._waiting

    def close(self) -> None:
        """Let others have the folder; the keyframes stay there."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def remove(self) -> None:
        """Delete the folder: its keyframes are in a map, or there are none. A kill half-way leaves no part of it."""
        self.close()
        if self.folder is not None:
            discard(self.folder)
            if self._made_parent:
                with contextlib.suppress(OSError):  # not empty: the map is there
                    self.folder.parent.rmdir()

    def _open(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(folder)
            for doomed in folder.parent.glob(_REMOVED.format(folder.name, "*")):
                shutil.rmtree(doomed, ignore_errors=True)
            session = folder / _SESSION
            if count_keyframes(folder):
                _check_facts(folder, json.loads(session.read_text()), self._facts)
            else:
                write_whole(session, json.dumps(self._facts, indent=1).encode())
            self._load(folder)
        except (OSError, ValueError) as error:
            self.close()
            raise MapError(f"the journal {folder} cannot be used: {error}") from error
        except MapError:
            self.close()
            raise

    def _load(self, folder: Path) -> None:
        for part in folder.glob(f"*{PART}"):
            part.unlink()
        for file in sorted(folder.glob("*.safetensors")):
            self._next = int(file.stem) + 1
            try:
                self._items.append(read_keyframe(file))
            except MapError as error:
                self._tell(f"{error}; it is left out")

    def _begin_anew(self) -> None:
        """The camera is none of those that the session knew: its keyframes are kept, but not mixed with ours."""
        assert self.folder is not None
        count, folder = len(self._items), self.folder
        self.close()
        self._items, self._next = [], 0
        try:
            kept = set_aside(folder, self._tell)
            self._open(folder)
        except (OSError, MapError) as error:
            self._tell(f"a new journal cannot be begun: {error}")
            self.folder = None
            return
        self._tell(f"the camera is another than that of the {count} keyframes found; they are set aside in {kept}")


def count_keyframes(folder: Path) -> int:
    """How many whole keyframes lie in a journal; 0 where there is none."""
    return len(list(folder.glob("*.safetensors")))


def discard(folder: Path) -> None:
    """Delete a journal. Raises MapError when another process has it."""
    if not folder.exists():
        return
    doomed = folder.with_name(_REMOVED.format(folder.name, os.getpid()))
    _renamed(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def set_aside(folder: Path, tell: Callable[[str], None] = print) -> Path:
    """Rename a journal to ``NAME-N`` beside it, N higher than before. Raises MapError when another process has it.

    Of those set aside earlier only the newest stay, :data:`_KEPT_ASIDE` in all; ``tell`` says which ones go.
    """
    earlier = _set_aside_before(folder)
    kept = folder.with_name(f"{folder.name}-{1 + max(earlier, default=0)}")
    _renamed(folder, kept)
    for number in sorted(earlier)[: 1 - _KEPT_ASIDE]:
        count = count_keyframes(earlier[number])
        try:
            discard(earlier[number])
        except MapError as error:
            tell(str(error))
        else:
            tell(f"{count} keyframes set aside earlier, in {earlier[number]}, are deleted: newer ones are kept")
    return kept


def _set_aside_before(folder: Path) -> dict[int, Path]:
    """By number."""
    names = {path.name.removeprefix(f"{folder.name}-"): path for path in folder.parent.glob(f"{folder.name}-*")}
    return {int(name): path for name, path in names.items() if name.isdecimal() and path.is_dir()}


def _renamed(folder: Path, to: Path) -> None:
    lock = _locked(folder)
    try:
        folder.rename(to)
    except OSError as error:
        raise MapError(f"the journal {folder} cannot be moved: {error}") from error
    finally:
        os.close(lock)


def _locked(folder: Path) -> int:
    """A descriptor that holds the folder for this process; the system frees it however the process ends."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise MapError(f"another process is mapping into {folder.parent}; stop it or choose another folder") from None
    except OSError:
        pass  # a file system without locks
    return handle


def _check_facts(folder: Path, found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    names = [name for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name)]
    if not names:
        return
    count = count_keyframes(folder)
    told = "; ".join(f"{name} was {found.get(name, 'not given')}, is {wanted.get(name, 'not given')}" for name in names)
    raise OtherSession(f"{folder} holds {count} keyframes of an interrupted session that differs: {told}")


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Within, signals that end the program wait: an exception raised by their handlers while safetensors reads a file
    would come out as damage of that file. Handlers run in the main thread alone, so nothing is done in others."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if threading.current_thread() is not threading.main_thread() or None in handlers.values():
        yield
        return
    arrived: list[int] = []
    for number in handlers:
        signal.signal(number, lambda number, frame: arrived.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if arrived:
            signal.raise_signal(arrived[0])
