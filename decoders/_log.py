"""What decoders inside a foreign FFmpeg complain of: they conceal what they can't decode, and tell only their log."""

from __future__ import annotations

import atexit
import ctypes
from collections.abc import Iterable

_ERROR_LEVEL = 16  # of FFmpeg's log (libavutil/log.h); lower is worse


class Complaints:
    """Counts the errors that decoders log from now on."""

    def __init__(self, libraries: Iterable[ctypes.CDLL]) -> None:
        """`libraries` in each of which FFmpeg's av_log_set_callback is found; none: nothing is heard."""
        self.count = 0
        self._callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(
            self._hear
        )
        for library in libraries:
            library.av_log_set_callback(self._callback)
            # Videos that are open when Python ends are closed behind its back.
            atexit.register(library.av_log_set_callback, library.av_log_default_callback)

    def _hear(self, speaker: int | None, level: int, _text: bytes, _values: int) -> None:
        if speaker and level <= _ERROR_LEVEL:
            # It begins with a pointer to its AVClass, and that with a pointer to the name of the class.
            name = ctypes.cast(speaker, ctypes.POINTER(ctypes.POINTER(ctypes.c_char_p)))[0][0]
            self.count += name == b"AVCodecContext"
