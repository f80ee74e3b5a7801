"""Every error a user can meet, as one tree.

VidxError
├── InputError           the command or its arguments make no sense
├── UnknownChoice        no decoder, encoder or format of that name
├── StoreError
│   ├── StoreMissing     nothing has been indexed there yet
│   ├── StoreTooNew      written by a later vidx
│   ├── StoreDamaged     a table or file of the store can't be read
│   ├── StoreLocked      another process is writing
│   └── IdsExhausted     a video got more clips than its plan announced
├── WeightsError
│   ├── WeightsMissing   the encoder's files are not on this machine
│   ├── WeightsAltered   they are, but their sha256 is wrong
│   ├── WeightsDamaged   a file that can't be read as weights
│   └── WeightsMisfit    weights of another network, or not all of them
├── Interrupted          the user pressed Ctrl-C
├── EncoderBroken        an encoder returned vectors that can't be right
└── MediaError           one file can't be used; recorded in the store, never ends a run
    ├── NotVideo
    └── Unreadable
        └── NotTrusted   by this decoder, which may get it wrong; another one may read it
"""

from __future__ import annotations


class VidxError(Exception):
    """A failure with a message for the user and, where there is one, a way on."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class InputError(VidxError):
    exit_code = 2


class UnknownChoice(VidxError):
    exit_code = 2


class StoreError(VidxError):
    pass


class StoreMissing(StoreError):
    pass


class StoreTooNew(StoreError):
    pass


class StoreDamaged(StoreError):
    pass


class StoreLocked(StoreError):
    exit_code = 4


class IdsExhausted(StoreError):
    pass


class WeightsError(VidxError):
    pass


class WeightsMissing(WeightsError):
    pass


class WeightsAltered(WeightsError):
    pass


class WeightsDamaged(WeightsError):
    pass


class WeightsMisfit(WeightsError):
    pass


class Interrupted(VidxError):
    exit_code = 130


class EncoderBroken(VidxError):
    pass


class MediaError(VidxError):
    pass


class NotVideo(MediaError):
    pass


class Unreadable(MediaError):
    pass


class NotTrusted(Unreadable):
    pass
