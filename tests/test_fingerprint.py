"""The identity of contents, against a recomputation from its description."""

from __future__ import annotations

import hashlib
import os
from fractions import Fraction
from pathlib import Path

import pytest

from vidx.indexer.fingerprint import fingerprint

_MB = 2**20
_LIMIT = 64 * _MB  # up to here files are read whole
_BLOCK = 64 * 2**10
_LARGE = 200 * _MB + 12_345


def id_of(path: Path) -> str:
    return fingerprint(os.fsencode(path))


def sampled_starts(size: int) -> list[int]:
    """64 starts, the first at 0, the last a block before the end, the others at equal distances, rounded down."""
    return [int(Fraction(size - _BLOCK, 63) * number) for number in range(64)]


def expected_id(path: Path) -> str:
    size = path.stat().st_size
    with open(path, "rb") as file:
        if size <= _LIMIT:
            content = file.read()
        else:
            content = size.to_bytes(8, "little")
            for start in sampled_starts(size):
                file.seek(start)
                content += file.read(_BLOCK)
    return "b1-" + hashlib.blake2b(content, digest_size=16).hexdigest()


def sparse(path: Path, size: int) -> Path:
    """A file that takes no room on the disk."""
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def alter(path: Path, at: int) -> None:
    """Give one byte another value."""
    with open(path, "r+b") as file:
        file.seek(at)
        (value,) = file.read(1)
        file.seek(at)
        file.write(bytes([value ^ 0xFF]))


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """200 MB of nothing with a mark in some places."""
    path = sparse(tmp_path / "large.mp4", _LARGE)
    for number in range(0, 64, 5):
        alter(path, sampled_starts(_LARGE)[number] + number)
    return path


@pytest.mark.parametrize("size", [0, 1, 5000, _MB, _MB + 1, 3 * _MB - 1])
def test_a_small_file_is_identified_by_all_its_bytes(tmp_path, size):
    path = tmp_path / "small.mp4"
    path.write_bytes(bytes(number * 31 % 251 for number in range(size)))
    assert id_of(path) == expected_id(path)


def test_the_id_of_a_known_content_never_changes(tmp_path):
    """blake2b-128 of b"abc", as `b2sum -l 128` prints it."""
    (tmp_path / "abc").write_bytes(b"abc")
    assert id_of(tmp_path / "abc") == "b1-cf4ab791c62b8d2b2109c90275287816"


@pytest.mark.parametrize("at", [0, 12_345, 2 * _MB - 1])
def test_one_byte_changes_the_id_of_a_small_file(tmp_path, at):
    path = sparse(tmp_path / "small.mp4", 2 * _MB)
    before = id_of(path)
    alter(path, at)
    assert id_of(path) != before


def test_name_and_modification_time_do_not_matter(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"content")
    before = id_of(path)
    os.utime(path, ns=(0, 0))
    moved = os.path.join(os.fsencode(tmp_path), b"moved-\xc3\xa9.mp4")
    os.rename(path, moved)
    assert fingerprint(moved) == before


def test_a_file_of_exactly_64_mb_is_still_read_whole(tmp_path):
    path = sparse(tmp_path / "limit.mp4", _LIMIT)
    before = id_of(path)
    assert before == expected_id(path)
    alter(path, sampled_starts(_LIMIT)[1] - 1)  # between two blocks, were it sampled
    assert id_of(path) != before


@pytest.mark.parametrize("size", [_LIMIT + 1, _LARGE, 5 * 2**30 + 1])
def test_a_large_file_is_identified_by_its_size_and_64_blocks(tmp_path, size):
    path = sparse(tmp_path / "large.mp4", size)
    alter(path, 0)
    alter(path, size - 1)
    assert id_of(path) == expected_id(path)


@pytest.mark.parametrize("block", [0, 1, 31, 62, 63])
@pytest.mark.parametrize("within", [0, _BLOCK - 1])
def test_one_byte_in_a_sampled_block_changes_the_id_of_a_large_file(large, block, within):
    before = id_of(large)
    alter(large, sampled_starts(_LARGE)[block] + within)
    assert id_of(large) != before
    assert id_of(large) == expected_id(large)


def test_head_and_tail_of_a_large_file_count(large):
    ids = {id_of(large)}
    for at in (1, _LARGE - 1):
        alter(large, at)
        ids.add(id_of(large))
    assert len(ids) == 3


def test_what_lies_between_the_blocks_of_a_large_file_is_not_read(large):
    before = id_of(large)
    alter(large, sampled_starts(_LARGE)[7] - 1)
    assert id_of(large) == before


def test_large_files_of_different_size_differ_even_where_the_blocks_agree(tmp_path):
    ids = {id_of(sparse(tmp_path / f"{size}.mp4", size)) for size in (_LARGE, _LARGE + 1, _LARGE + _MB)}
    assert len(ids) == 3


def test_a_file_that_cannot_be_read_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        id_of(tmp_path / "missing.mp4")
    with pytest.raises(IsADirectoryError):
        id_of(tmp_path)
