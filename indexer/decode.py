"""Decoding in several child processes at a time.

Each child is owned by one thread here, which feeds it jobs and passes its answers into one bounded queue. A full queue
blocks the thread, the pipe fills, the child waits: no stage runs ahead of the next.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator
from typing import Any

from vidx.indexer.answers import Answer, DecodeOptions
from vidx.indexer.jobs import Found, Job, Known, Settled
from vidx.indexer.split import Pool
from vidx.indexer.worker import Worker

_TOGETHER = 1000  # unchanged files passed from thread to thread at once: one by one, that costs more than all else
_QUEUE_LENGTH = 8  # answers waiting for the encoder; a clip is a few MB


def decode(found: Iterator[Found], options: DecodeOptions) -> Generator[Answer | Settled, None, None]:
    """Answers of all jobs, those of different jobs mixed; all else passes through.

    Each job gives Opened and its Clips where the file can be used, and exactly one Ended in every case, in this order;
    the clips of a long video may come in any order. An exception in
    `found` is raised here. Closing the iterator kills the children.
    """
    answers: queue.Queue[Any] = queue.Queue(_QUEUE_LENGTH)
    stop = threading.Event()
    pool = Pool(stop)
    source = _Source(found, pool)
    threads = [
        threading.Thread(target=_serve, args=(source, pool, options, answers, stop), daemon=True)
        for _ in range(options.workers)
    ]
    for thread in threads:
        thread.start()
    running = len(threads)
    try:
        while running:
            answer = answers.get()
            if answer is None:
                running -= 1
            elif isinstance(answer, BaseException):
                raise answer
            else:
                yield from answer
    finally:
        stop.set()
        while any(thread.is_alive() for thread in threads):  # let blocked threads see `stop`
            with contextlib.suppress(queue.Empty):
                answers.get(timeout=0.05)


class _Source:
    """Lets several threads draw from one iterator; whoever draws a job must end it in the pool."""

    def __init__(self, items: Iterator[Found], pool: Pool) -> None:
        self._items, self._pool, self._lock = items, pool, threading.Lock()

    def next(self) -> list[Found]:
        """The next items, none when there are no more: files of which nothing was read together, one other at most."""
        taken: list[Found] = []
        with self._lock:
            for item in self._items:
                taken.append(item)
                if len(taken) == _TOGETHER or not (isinstance(item, Known) and item.up_to_date):
                    break
            if taken and isinstance(taken[-1], Job):
                self._pool.begin()  # before another thread can find that nothing is left, not even to help with
        return taken


def _serve(
    source: _Source, pool: Pool, options: DecodeOptions, answers: queue.Queue[Any], stop: threading.Event
) -> None:
    worker = Worker(options, pool, stop)
    try:
        while not stop.is_set() and (items := source.next()):
            if settled := [item for item in items if not isinstance(item, Job)]:
                answers.put(settled)
            if isinstance(items[-1], Job):
                try:
                    for answer in worker.run(items[-1]):
                        answers.put([answer])
                finally:
                    pool.end()
        while (claimed := pool.help()) is not None:
            for answer in worker.help(*claimed):
                answers.put([answer])
    except BaseException as error:  # handed to the consumer, which raises it
        answers.put(error)
    finally:
        worker.close()
        answers.put(None)
