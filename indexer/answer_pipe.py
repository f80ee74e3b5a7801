"""What a decode process says to its parent: headers as JSON, pixels as plain bytes, and signs of life."""

from __future__ import annotations

import json
import time
from multiprocessing.connection import Connection
from typing import Any

_SIGN_OF_LIFE_S = 1.0


class AnswerPipe:
    """The way to the parent; `alive` keeps its watchdog quiet while there is nothing else to say."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._last = time.monotonic()

    def send(self, header: dict[str, Any], *payloads: bytes) -> None:
        """A message, and how many payloads come behind it. Raises BrokenPipeError where the parent is gone."""
        self._connection.send_bytes(json.dumps({**header, "payloads": len(payloads)}).encode())
        for payload in payloads:
            self._connection.send_bytes(payload)
        self._last = time.monotonic()

    def alive(self) -> None:
        """Say so, but at most once a second."""
        if time.monotonic() - self._last >= _SIGN_OF_LIFE_S:
            self.send({"kind": "alive"})
