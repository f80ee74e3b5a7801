"""Stretches of a stream whose clock goes on, and which of them make up one video."""

from __future__ import annotations

from dataclasses import dataclass

_STRAY_PACKETS = 5  # fewer than this at the very beginning don't set the clock
_RUNS_COMPARED = 1000  # more are taken as they come


@dataclass
class Run:
    """Shown packets whose clock goes on from one to the next; its ticks and keys begin at these places."""

    ticks_from: int
    keys_from: int
    first_dts: int | None = None
    last_dts: int | None = None
    top_tick: int = -(2**63)  # the largest, and how long its packet says it is shown
    top_duration: int = 0
    packets: int = 0


@dataclass(frozen=True)
class ClockRules:
    """What a clock may do, in ticks.

    A decode time that falls back by more than `back` or leaps ahead by more than `gap` begins a run. A run goes on
    where another ended if it begins at most `leap` later, or before `end`, up to which any gap is allowed.
    """

    back: int
    gap: int
    leap: int
    end: int

    def begins_run(self, step: int) -> bool:
        return not -self.back <= step <= self.gap

    def goes_on(self, before: Run, run: Run) -> bool:
        if before.last_dts is None or run.first_dts is None:
            return True
        return before.last_dts - self.back <= run.first_dts <= max(before.last_dts + self.leap, self.end)


def runs_of_one_clock(runs: list[Run], rules: ClockRules) -> list[int]:
    """Numbers of the runs that go on from one to the next, from the first on, with the most packets.

    The others have a new clock, or times that were damaged.
    """
    taken = [0]
    for number in range(1, len(runs)):
        if rules.goes_on(runs[taken[-1]], runs[number]):
            taken.append(number)
    if len(taken) == len(runs) or len(runs) > _RUNS_COMPARED:
        return taken
    return _longest_chain(runs, rules)


def _longest_chain(runs: list[Run], rules: ClockRules) -> list[int]:
    lengths: list[int] = []  # packets of the best chain that ends with each run; 0 for none
    before: list[int | None] = []
    packets_so_far = 0
    for number, run in enumerate(runs):
        starts = number == 0 or packets_so_far < _STRAY_PACKETS
        candidates = [other for other in range(number) if lengths[other] and rules.goes_on(runs[other], run)]
        best = max(candidates, key=lambda other: lengths[other], default=None)
        before.append(best)
        lengths.append(run.packets + (lengths[best] if best is not None else 0) if starts or best is not None else 0)
        packets_so_far += run.packets
    chain: list[int] = []
    at: int | None = max(range(len(runs)), key=lambda number: lengths[number])
    while at is not None:
        chain.append(at)
        at = before[at]
    return chain[::-1]
