"""Bringing released files of weights from where they are published: resumable, checked, and only when asked for."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from vidx import encoders
from vidx.encoders._spec import EncoderSpec, WeightsFile
from vidx.encoders._weights import digest_of
from vidx.errors import WeightsAltered, WeightsError, WeightsMissing

Progress = Callable[[int, int], None]  # bytes that are here, bytes in all (0: unknown)

_SILENCE_S = 30.0  # from a host, before a transfer counts as broken
_SILENCE_OF_DEFAULT_S = 3.0  # before the first answer, for a file that nobody asked for
_BLOCK_BYTES = 2**20
_HUB = "hf://"
_HEADERS = {"User-Agent": "vidx"}


def fetch(spec: EncoderSpec, progress: Progress) -> list[Path]:
    """Bring all files of an encoder that are not here, and return where all lie.

    A transfer that breaks off goes on where it stopped when it is asked for again. Raises WeightsMissing, with the ways
    on, where a file has no address, the network is switched off or the host can't be reached; WeightsAltered where what
    came is not what was published.
    """
    return [_fetched(spec, file, progress) for file in spec.weights]


def is_offline() -> bool:
    """Whether the variable that Hugging Face's tools know switches the network off."""
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "on", "yes", "true")


def default_encoder(tell: Callable[[str], None], progress: Progress, *, offline: bool) -> str:
    """The encoder of a new store for which none was named.

    The default where its weights are here or can be had now, after its size was told; else the one that needs no hub,
    with one line on why and on how to get the better one. Raises WeightsMissing where that is not here either.
    """
    spec = encoders.spec(encoders.DEFAULT)
    if spec.is_here:
        return spec.name
    reason = "the network is switched off"
    if not offline and not is_offline():
        try:
            tell(f"fetching the weights of {spec.name}, {sum(f.size_bytes for f in spec.weights) / 1e6:.0f} MB, once")
            for file in spec.weights:
                _ask(_url(file.address or ""))
            fetch(spec, progress)
            return spec.name
        except (WeightsError, OSError) as error:
            reason = f"its host can't be reached ({_told(error)})" if isinstance(error, OSError) else str(error)
    if not (fallback := encoders.spec(encoders.FALLBACK)).is_here:
        source = next(file.source for file in fallback.weights if file.found() is None)
        raise WeightsMissing(
            f"the weights of encoder {fallback.name} are not on this machine", hint=f"{source}, or name an --encoder"
        )
    tell(
        f"using {encoders.FALLBACK}, which finds things, not actions: {reason};"
        f" for actions: `vidx encoders fetch {spec.name}`, then `vidx index --encoder {spec.name}`"
    )
    return encoders.FALLBACK


def _ask(url: str) -> None:
    """Raises OSError where nobody answers soon."""
    request = urllib.request.Request(url, method="HEAD", headers=_HEADERS)
    with urllib.request.urlopen(request, timeout=_SILENCE_OF_DEFAULT_S):
        pass


def _told(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror or error)


def _fetched(spec: EncoderSpec, file: WeightsFile, progress: Progress) -> Path:
    if (here := file.found()) is not None:
        return here
    if file.address is None or file.place is None:
        raise WeightsMissing(f"the {file.role} weights of {spec.name} have no address to fetch from", hint=file.source)
    if is_offline():
        raise WeightsMissing(
            f"the weights of {spec.name} are not here and HF_HUB_OFFLINE is set", hint="unset it, or bring the file"
        )
    path = file.place
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _transfer(_url(file.address), part, progress, is_checked=file.sha256 is not None)
    except OSError as error:
        raise WeightsMissing(
            f"can't fetch {_url(file.address)} ({_told(error)})",
            hint=f"run it again to go on, or bring the file by other means to {path}, or give it with --weights FILE",
        ) from error
    if file.sha256 and (found := digest_of(part)) != file.sha256:
        part.unlink()
        raise WeightsAltered(
            f"what came from {_url(file.address)} is not what was published (sha256 {found[:12]})", hint="try again"
        )
    os.replace(part, path)
    digest_of(path)  # recorded, so that a later change shows
    return path


def _transfer(url: str, part: Path, progress: Progress, *, is_checked: bool) -> None:
    """Write what is missing of a file; all of it where the host has, or may have, another one by now. Raises OSError.

    `is_checked` says that the whole will be compared with a published digest.
    """
    mark = part.with_name(part.name + ".etag")  # the host's name of the very content of which a part is here
    etag = mark.read_text(encoding="utf-8") if mark.exists() else ""
    have = part.stat().st_size if part.exists() and (etag or is_checked) else 0
    wanted = {"Range": f"bytes={have}-", **({"If-Range": etag} if etag else {})}
    request = urllib.request.Request(url, headers={**_HEADERS, **(wanted if have else {})})
    try:
        answer = urllib.request.urlopen(request, timeout=_SILENCE_S)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is missing
            mark.unlink(missing_ok=True)
            return
        raise
    with answer:
        if answer.status != 206:  # another file, or a host that knows no ranges
            have = 0
        if (etag := answer.headers.get("ETag", "")) and not etag.startswith("W/"):
            mark.write_text(etag, encoding="utf-8")
        total = have + int(answer.headers.get("Content-Length", 0))
        with open(part, "ab" if have else "wb") as file:
            while block := answer.read(_BLOCK_BYTES):
                file.write(block)
                have += len(block)
                progress(have, total)
        if total and have < total:
            raise OSError(f"it broke off after {have} of {total} bytes")
    mark.unlink(missing_ok=True)


def _url(address: str) -> str:
    if not address.startswith(_HUB):
        return address
    owner, name, file = address.removeprefix(_HUB).split("/", 2)
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    return f"{endpoint}/{owner}/{name}/resolve/main/{file}"
