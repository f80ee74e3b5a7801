"""Bringing released files of weights from where they are published: resumable, checked, and only when asked for."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

from vidx import encoders
from vidx.encoders._spec import EncoderSpec, WeightsFile
from vidx.encoders._weights import digest_of, remember, weights_folder
from vidx.errors import WeightsAltered, WeightsError, WeightsMissing
from vidx.plugins import load

Progress = Callable[[int, int], None]  # bytes that are here, bytes in all (0: unknown)

_SILENCE_S = 30.0  # from a host, before a transfer counts as broken
_SILENCE_OF_DEFAULT_S = 3.0  # before the first answer, for a file that nobody asked for
_BLOCK_BYTES = 2**20
_HUB = "hf://"
_HEADERS = {"User-Agent": "vidx"}
_PAGES = ("text/html", "application/xhtml+xml")  # what networks answer with until one has logged in to them
_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+)")  # RFC 9110, section 14.4


def fetch(spec: EncoderSpec, progress: Progress) -> list[Path]:
    """Bring all files of an encoder that are not here, and return where all lie.

    A transfer that breaks off goes on where it stopped when it is asked for again. Raises WeightsMissing, with the ways
    on, where a file has no address, the network is switched off, the host can't be reached or sends what is no file;
    WeightsAltered where what came is not what was published.
    """
    paths = [_fetched(spec, file, progress) for file in spec.weights]
    family = load("encoders", spec.family)
    if hasattr(family, "bring_tokenizer"):
        family.bring_tokenizer(spec)
    return paths


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
    """Raises OSError where nobody answers soon, WeightsMissing where a web page does."""
    with _answer(url, {}, timeout_s=_SILENCE_OF_DEFAULT_S, method="HEAD"):
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
    if (folder := weights_folder()).is_file():
        raise WeightsMissing(
            f"{folder} is a file, and fetched weights go into a folder of that name",
            hint="set VIDX_WEIGHTS to a folder",
        )
    path, url = file.place, _url(file.address)
    part = path.with_name(path.name + ".part")
    try:
        with _os_errors():
            _transfer(url, part, progress, is_checked=file.sha256 is not None)
    except OSError as error:
        raise WeightsMissing(
            f"can't fetch {url} ({_told(error)})",
            hint=f"run it again to go on, or bring the file by other means to {path}, or give it with --weights FILE",
        ) from error
    found = digest_of(part)
    if file.sha256 and found != file.sha256:
        part.unlink()
        raise WeightsAltered(f"what came from {url} is not what was published (sha256 {found[:12]})", hint="try again")
    os.replace(part, path)
    remember(path, found)
    return path


def _transfer(url: str, part: Path, progress: Progress, *, is_checked: bool) -> None:
    """Write what is missing of a file; all of it where the host has, or may have, another one by now. Raises OSError.

    `is_checked` says that the whole will be compared with a published digest.
    """
    mark = part.with_name(part.name + ".etag")  # the host's name of the very content of which a part is here
    etag = mark.read_text(encoding="utf-8") if mark.exists() else ""
    have = part.stat().st_size if part.exists() and (etag or is_checked) else 0
    wanted = {"Range": f"bytes={have}-", **({"If-Range": etag} if etag else {})}
    answer = _answer(url, wanted if have else {})
    if have and answer.status != 200 and not _goes_on(answer, have, etag, is_checked=is_checked):
        answer.close()
        answer = _answer(url, {})
    with answer:
        if answer.status != 416:  # which says that nothing is missing
            _write(answer, part, mark, have if answer.status == 206 else 0, progress, is_checked=is_checked)
    mark.unlink(missing_ok=True)


def _goes_on(answer: Any, have: int, etag: str, *, is_checked: bool) -> bool:
    """Whether an answer to a question for the rest of a file is of the very file of which `have` bytes are here.

    Some hosts don't look at the ETag they are asked for.
    """
    place = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    first, total = (place[1] and int(place[1]), int(place[2])) if place else (None, None)
    theirs = answer.headers.get("ETag", "")
    if answer.status == 416:
        return is_checked if total is None else total == have and (is_checked or theirs in ("", etag))
    return first in (None, have) and (theirs == etag if etag else is_checked)


def _write(answer: Any, part: Path, mark: Path, have: int, progress: Progress, *, is_checked: bool) -> None:
    length = answer.headers.get("Content-Length")
    if length is not None and not length.isdecimal():
        raise OSError(f"the host says that it is {length!r} bytes long")
    if length is None and not is_checked and answer.headers.get("Transfer-Encoding", "").lower() != "chunked":
        raise OSError("the host does not say how long it is, so that nobody could tell whether all of it came")
    total = have + int(length) if length is not None else 0
    part.parent.mkdir(parents=True, exist_ok=True)
    with open(part, "ab" if have else "wb") as file:
        # Behind the opening, which empties a part of another file.
        if (etag := answer.headers.get("ETag", "")) and not etag.startswith("W/"):
            mark.write_text(etag, encoding="utf-8")
        else:
            mark.unlink(missing_ok=True)
        while block := answer.read(_BLOCK_BYTES):
            file.write(block)
            have += len(block)
            progress(have, total)
    if total and have < total:
        raise OSError(f"it broke off after {have} of {total} bytes")


def _answer(url: str, headers: dict[str, str], *, timeout_s: float = _SILENCE_S, method: str = "GET") -> Any:
    """A host's answer; of its refusals only that nothing is missing of a range (416).

    Raises OSError; WeightsMissing for a web page.
    """
    with _os_errors():
        request = urllib.request.Request(url, method=method, headers={**_HEADERS, **headers})
        try:
            answer = urllib.request.urlopen(request, timeout=timeout_s)
        except urllib.error.HTTPError as error:
            if error.code == 416 and "Range" in headers:
                return error
            raise
    if answer.headers.get_content_type() in _PAGES:
        answer.close()
        raise WeightsMissing(
            f"{url} is answered with a web page, not with a file",
            hint="if the network wants you to log in, do that in a browser first; then run it again",
        )
    return answer


@contextmanager
def _os_errors() -> Iterator[None]:
    """What urllib and http.client raise where an address or an answer makes no sense, as OSError."""
    try:
        yield
    except (HTTPException, ValueError) as error:
        raise OSError(str(error) or type(error).__name__) from error


def _url(address: str) -> str:
    if not address.startswith(_HUB):
        return address
    owner, name, file = address.removeprefix(_HUB).split("/", 2)
    endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    return f"{endpoint}/{owner}/{name}/resolve/main/{file}"
