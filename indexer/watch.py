"""Following a folder: when another run over it is due, and which of its files are whole by then.

A file counts as whole when its size and modification time have stayed as they are for some seconds, and, where the
system can tell, no process has it open for writing. What the system tells of changes only says when to look again;
what has changed is found by the run, which walks the whole folder: so a file that was moved between folders is met at
both ends, nothing hangs on an event that got lost, and a run is the same as any other.
"""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from vidx import encoders
from vidx.encoders import EncoderSpec, VideoTextEncoder
from vidx.errors import InputError
from vidx.indexer.vanished import knows
from vidx.indexer.walk import Skipped, is_online, storable_mtime_ns
from vidx.schema.records import FoundFile
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store

RESCAN_S = 3600.0  # a run comes at least so often, whatever the system told
_TICK_S = 1.0
_RECENT_S = 3600.0  # what was changed longer ago is whole, even if clocks differ by as much
_NETWORK = {"9p", "afs", "ceph", "cifs", "lustre", "ncpfs", "nfs", "nfs4", "prl_fs", "smb3", "smbfs", "vboxsf"}


class _Facts(NamedTuple):
    size_bytes: int
    mtime_ns: int


class Settling:
    """The files that may still be growing. `settle_s`: how long one has to stay as it is.

    `is_local`: no other machine writes to them, so that the system can tell who does.
    """

    def __init__(self, settle_s: float, *, is_local: bool = True) -> None:
        self.settle_s, self._is_local = settle_s, is_local
        self._waiting: dict[bytes, tuple[_Facts, float]] = {}  # and since when they are so
        self._whole: dict[bytes, _Facts] = {}  # changed not long ago; others need not be remembered
        self._unknown_since: float | None = None  # something has gone, or come with all that is in it

    def is_settled(self, entry: FoundFile | Skipped) -> bool:
        """Whether a run may take what it has walked to; a file that it may not is waited for."""
        if isinstance(entry, Skipped):
            return True
        path, facts = entry.path_bytes, _Facts(entry.size_bytes, entry.mtime_ns)
        if self._whole.get(path) == facts:
            return True
        if path not in self._waiting and not self._is_recent(facts):
            return True
        self._wait_for(path, facts)
        return False

    def note(self, path: bytes, *, is_new: bool) -> None:
        """Something has happened to a path; `is_new` if it was not there before."""
        facts = _facts(path)
        if facts is None:
            self._waiting.pop(path, None)
            if is_new or not os.path.isdir(path):
                self.look_again()
        elif self._whole.get(path) != facts:
            self._wait_for(path, facts)

    def look_again(self) -> None:
        """Have a run come whatever has settled."""
        if self._unknown_since is None:
            self._unknown_since = time.monotonic()

    def is_due(self) -> bool:
        """Whether a run is to come now; it may then take what has settled."""
        settled = [path for path in list(self._waiting) if self._has_settled(path)]
        if not settled and not self._is_over(self._unknown_since):
            return False
        self._whole = {path: facts for path, facts in self._whole.items() if self._is_recent(facts)}
        self._whole |= {path: self._waiting.pop(path)[0] for path in settled}
        self._unknown_since = None
        return True

    def _wait_for(self, path: bytes, facts: _Facts) -> None:
        if path not in self._waiting or self._waiting[path][0] != facts:
            self._waiting[path] = (facts, time.monotonic())

    def _has_settled(self, path: bytes) -> bool:
        before, since = self._waiting[path]
        if not self._is_over(since):
            return False
        if (facts := _facts(path)) is None:
            self.note(path, is_new=False)
            return False
        self._wait_for(path, facts)
        return facts == before and not (self._is_local and is_written(path))

    def _is_over(self, since: float | None) -> bool:
        return since is not None and time.monotonic() - since >= self.settle_s

    def _is_recent(self, facts: _Facts) -> bool:
        return facts.mtime_ns > time.time_ns() - (_RECENT_S + self.settle_s) * 1e9


class SameEncoders:
    """Builds each encoder once, however often it is asked for."""

    def __init__(self) -> None:
        self._built: list[VideoTextEncoder] = []

    def __call__(self, spec: EncoderSpec) -> VideoTextEncoder:
        for encoder in self._built:
            if encoder.spec == spec:
                return encoder
        self._built.append(encoders.build(spec))
        return self._built[-1]


def has_files(root: Path, store_path: Path) -> bool:
    """Whether there is anything below a folder, or was: where not, a run would be an error. Raises StoreError."""
    known = (store_path / "store.json").exists()
    return is_online(root) or (known and knows(Snapshot(Store.open(store_path)), os.fsencode(root)))


def rounds(root: Path, store_path: Path, settling: Settling, tell: Callable[[str], None]) -> Iterator[None]:
    """Yields when a run over a folder is due, for the first time as soon as its changes are noted.

    A folder that goes away or comes back is one. Raises InputError where watchfiles is missing, KeyboardInterrupt.
    """
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # a writer that meets a lease of ours sends it, and it would kill
    inside = os.path.relpath(os.path.realpath(store_path), os.path.realpath(root))
    while True:
        identity, last = _identity(root), None
        for changes in _changes(root, settling.settle_s, tell):
            for path, is_new in changes:
                if _concerns(os.path.relpath(path, root), inside):
                    settling.note(os.fsencode(path), is_new=is_new)
            if _identity(root) != identity:
                break
            if settling.is_due() or last is None or time.monotonic() - last >= RESCAN_S:
                yield
                last = time.monotonic()


def is_written(path: bytes) -> bool:
    """Whether a process has a file open for writing; False where the system can't tell.

    Not for network drives: some refuse leases as if there were always one.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.fcntl(opened, fcntl.F_SETLEASE, fcntl.F_RDLCK)  # which no file can get that is open for writing
        fcntl.fcntl(opened, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:  # not ours, or a file system without leases
        return False
    finally:
        os.close(opened)
    return False


def _changes(root: Path, settle_s: float, tell: Callable[[str], None]) -> Iterator[list[tuple[str, bool]]]:
    """What has changed below a folder, as paths and whether they are new, about every second; often nothing."""
    try:
        from watchfiles import Change, watch
    except ImportError as error:
        raise InputError("--watch needs watchfiles", hint="pip install 'vidx[watch]'") from error
    polling = True if is_remote(root) else None  # None: as its own environment variable says
    while root.is_dir():
        if polling:
            tell(f"looking for changes every {settle_s:g} s")
        noted = watch(
            root,
            watch_filter=None,
            rust_timeout=int(_TICK_S * 1000),
            yield_on_timeout=True,
            force_polling=polling,
            poll_delay_ms=int(max(_TICK_S, settle_s) * 1000),
            ignore_permission_denied=True,
        )
        try:
            for changes in noted:
                yield [(path, change is Change.added) for change, path in changes]
        except (OSError, RuntimeError) as error:
            if root.is_dir():
                if polling:
                    raise InputError(f"can't watch {root}: {error}", hint="run `vidx index` from cron") from error
                tell(f"the system can't tell what changes ({error})")
                polling = True
    while True:
        yield []
        time.sleep(_TICK_S)


def _facts(path: bytes) -> _Facts | None:
    """Of a file; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return _Facts(found.st_size, storable_mtime_ns(found)) if stat.S_ISREG(found.st_mode) else None


def _identity(root: Path) -> tuple[int, int] | None:
    """What tells a folder from another one, or another drive, at its place."""
    try:
        found = os.stat(root)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _concerns(below: str, inside: str) -> bool:
    """Whether a run looks at a path; what runs do to the store, if it lies inside, must not bring the next one."""
    hidden = below != "." and any(part.startswith(".") for part in below.split("/"))
    return not hidden and not f"{below}/".startswith(f"{inside}/")


def is_remote(root: Path) -> bool:
    """Whether files at or below a folder may be changed by another machine, which the system does not tell of."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    except OSError:
        return False
    real = f"{os.path.realpath(root).rstrip('/')}/"
    kinds = {f"{fields[4].rstrip('/')}/": fields[fields.index("-") + 1] for fields in mounts}
    above = max((point for point in kinds if real.startswith(point)), key=len, default="/")
    own = [kind for point, kind in kinds.items() if point == above or point.startswith(real)]
    return any(kind in _NETWORK or kind.startswith("fuse.") for kind in own)
