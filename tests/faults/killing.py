"""Runs that are killed at an instant, the run that follows, and all that is to be known of both."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from vidx.errors import StoreMissing
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.tests.faults.checks import Clips, contents, doubled_thumbnails
from vidx.tests.faults.commands import Killed, Run, index_command, parsed
from vidx.tests.faults.fork_server import ForkServer
from vidx.tests.faults.often import often

COMMIT_S = 0.05


@dataclass(frozen=True)
class Moment:
    """When a run is killed: so many seconds after so many of its events, its first process or its whole group."""

    events: int
    seconds: float
    whole_group: bool

    def __str__(self) -> str:
        return f"{'group' if self.whole_group else 'leader'} killed {self.seconds:.3f} s after event {self.events}"


@dataclass(frozen=True)
class Aftermath:
    """What a run that was allowed to finish made of a store whose runs were killed."""

    moments: list[Moment]
    left_behind: list[int]  # processes that outlived their run
    wrong_when_killed: list[str]
    settled_when_killed: set[str]  # paths of content that was indexed whole
    run: Run
    clips: Clips
    wrong: list[str]
    doubled_thumbnails: int


def moments(seed: int, n: int, n_events: int) -> list[list[Moment]]:
    """n random instants, spread over the events of a run from before the first to behind the last.

    Every second one kills the group. One in five is followed by a second that kills the run that should have finished.
    """
    dice = random.Random(seed)

    def moment(events: int, whole_group: bool) -> Moment:
        # Nothing is to be seen of the start, nor of the end, which both take longer than an event.
        longest_s = 1.2 if events == 0 else 0.3 if events == n_events else 0.05
        return Moment(events, dice.uniform(0, longest_s), whole_group)

    found = []
    for number in range(n):
        first = moment(number * (n_events + 1) // n, whole_group=bool(number % 2))
        again = [moment(dice.randrange(n_events), whole_group=bool(dice.getrandbits(1)))] if number % 5 == 0 else []
        found.append([first, *again])
    return found


def kill_and_finish(root: Path, store: Path, moments: list[Moment], server: ForkServer) -> Aftermath:
    """Kill runs of `root` into a new store at some moments, then let one finish."""
    command = index_command(root, store)
    left: list[int] = []
    for number, moment in enumerate(moments):
        killed = Killed(often(COMMIT_S, command), f"{store}-{number}")
        killed.after(moment.events, moment.seconds, moment.whole_group)
        left += killed.left_behind()
    wrong, settled = _when_killed(store)
    ended = server.run(command, commit_s=COMMIT_S)
    run = parsed(ended.code, ended.printed, ended.errors)
    snapshot = Snapshot(Store.open(store))
    held, doubled = contents(snapshot), len(doubled_thumbnails(snapshot))
    return Aftermath(moments, left, wrong, settled, run, held.clips, held.violations, doubled)


def _when_killed(store: Path) -> tuple[list[str], set[str]]:
    """What is wrong with a store as a kill left it, and which paths it knows as indexed."""
    try:
        held = contents(store)
    except StoreMissing:
        return [], set()
    return held.violations, held.settled
