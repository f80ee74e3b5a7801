"""A store's config.toml: what it may say, what wins over it, how runs take it, and how it is changed."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidx import encoders
from vidx.api import open_archive
from vidx.cli_index import index
from vidx.config import IndexOptions
from vidx.errors import InputError, StoreError, VidxError
from vidx.schema.snapshot import Snapshot
from vidx.schema.store import Store
from vidx.settings import KEYS, index_options, read_settings, set_option, unset_option
from vidx.tests.faults.archive import MakeVideo, tiled_video
from vidx.tests.faults.commands import index_command, one_line
from vidx.tests.faults.fork_server import Finished, ForkServer

# Fields of IndexOptions that are of a run, or of a program, and not of a folder.
NOT_OF_A_FOLDER = {"encoder", "weights", "batch_size", "commit_s", "commit_clips", "retry_failed", "break_lock"}
NOT_OPTIONS = {"patterns_from", "from_file"}


def write(store: Path, text: str) -> Path:
    store.mkdir(exist_ok=True)
    path = store / "config.toml"
    path.write_text(text)
    return path


def test_every_key_is_a_long_option_of_index_and_every_option_of_a_folder_is_a_key() -> None:
    options = {option.name: option.opts for option in index.params if isinstance(option, click.Option)}
    assert all(f"--{key}" in options[field] for key, field in KEYS.items())
    assert set(KEYS.values()) == {field.name for field in fields(IndexOptions)} - NOT_OF_A_FOLDER - NOT_OPTIONS


# What wins


LEVELS = st.fixed_dictionaries(
    {},
    optional={
        "decoder": st.sampled_from(["pyav", "decord"]),
        "workers": st.integers(1, 9),
        "stall": st.floats(1, 99),
        "follow": st.booleans(),
        "thumbnails": st.booleans(),
    },
)


@given(everywhere=LEVELS, outer=LEVELS, inner=LEVELS, given=LEVELS)
def test_the_command_line_wins_over_the_nearest_folder_and_that_over_all_folders(
    tmp_path_factory: pytest.TempPathFactory, everywhere: Any, outer: Any, inner: Any, given: Any
) -> None:
    tables = {"[index]": everywhere, '[roots."/a"]': outer, '[roots."/a/b/"]': inner}
    lines = [
        line
        for name, table in tables.items()
        for line in (name, *(f"{key} = {json.dumps(value)}" for key, value in table.items()))
    ]
    store = tmp_path_factory.mktemp("store")
    write(store, "\n".join(lines))
    for folder, nearest in (("/a/b/c", inner or outer), ("/a/b", inner or outer), ("/a/bc", outer), ("/other", {})):
        options = index_options(store, Path(folder), {KEYS[key]: value for key, value in given.items()})
        for key in ("decoder", "workers", "stall", "follow", "thumbnails"):
            named = [level[key] for level in (given, nearest, everywhere) if key in level]
            expected = named[0] if named else getattr(IndexOptions(), KEYS[key])
            assert getattr(options, KEYS[key]) == expected
            assert (KEYS[key] in options.from_file) == (bool(named) and key not in given)


@pytest.mark.parametrize(
    ("root_table", "given", "expected"),
    [
        ("", {}, (8.0, 4.0)),
        ("clip = 5", {}, (5.0, None)),
        ("stride = 5", {}, (None, 5.0)),
        ("clip = 5", {"stride_s": 3.0}, (None, 3.0)),
        ("", {"clip_s": 2.0}, (2.0, None)),
        ("", {"decode": "exact"}, (8.0, 4.0)),
    ],
)
def test_a_clip_and_a_stride_from_different_places_never_meet(
    tmp_path: Path, root_table: str, given: dict[str, Any], expected: tuple[float, float]
) -> None:
    write(tmp_path, f'[index]\nclip = 8\nstride = 4\n[roots."/a"]\n{root_table}\n')
    options = index_options(tmp_path, Path("/a"), given)
    assert (options.clip_s, options.stride_s) == expected


def test_patterns_of_the_command_line_replace_all_of_the_file_which_count_from_their_folder(tmp_path: Path) -> None:
    write(tmp_path, '[index]\nexclude = ["*.lrf"]\n[roots."/a"]\ninclude = ["/news/"]\n')
    named = index_options(tmp_path, Path("/a/news"), {})
    assert (named.include, named.exclude, named.patterns_from) == (("/news/",), ("*.lrf",), Path("/a"))
    given = index_options(tmp_path, Path("/a/news"), {"exclude": ("",)})
    assert (given.include, given.exclude, given.patterns_from) == ((), ("",), None)
    elsewhere = index_options(tmp_path, Path("/b"), {})
    assert (elsewhere.include, elsewhere.exclude, elsewhere.patterns_from) == ((), ("*.lrf",), None)


def test_memory_is_told_in_gigabytes(tmp_path: Path) -> None:
    write(tmp_path, "[index]\nmemory = 1.5\n")
    assert index_options(tmp_path, Path("/a"), {}).memory_bytes == 3 * 2**29


def test_a_plan_in_the_file_is_not_asked_for_and_one_of_the_command_line_is(tmp_path: Path) -> None:
    write(tmp_path, "[index]\nclip = 5\n")
    assert not index_options(tmp_path, Path("/a"), {}).plan_is_asked
    assert index_options(tmp_path, Path("/a"), {"clip_s": 5.0}).plan_is_asked


# What is refused


BAD = {
    "[index\nclip = 5": ["not TOML", "line 1"],
    "[indx]\nclip = 5": ["[indx]"],
    "clip = 5": ["[clip]"],
    "index = 5": ["index"],
    "[index]\nclips = 5": ["clips", "[index]", "clip"],
    "[index]\nencoder = 'conse'": ["encoder", "[index]"],
    "[index]\nclip = '5'": ["clip", "[index]", "'5'"],
    "[index]\nclip = 0.01": ["clip", "[index]", "0.01"],
    "[index]\nclip = nan": ["clip", "nan"],
    "[index]\nworkers = true": ["workers", "True"],
    "[index]\nworkers = 2.5": ["workers", "2.5"],
    "[index]\nmemory = inf": ["memory", "inf"],
    "[index]\nmemory = true": ["memory", "True"],
    "[index]\nfollow = 'yes'": ["follow", "'yes'"],
    "[index]\ndecode = 'quick'": ["decode", "'quick'"],
    "[index]\nexclude = [1]": ["exclude", "[1]"],
    "[index]\nexclude = ['ok', 'a[']": ["exclude", "'a['"],
    "[index]\nstall = 5\n[index.sub]\nclip = 5": ["sub", "[index]"],
    "[roots]\nclip = 5": ['roots."clip"'],
    "[roots.'news']\nclip = 5": ['roots."news"', "absolute"],
    "[roots.'/b']\nclip = 5\n[roots.'/b/']\nclip = 6": ["/b", "twice"],
    "[index]\nclip = 5\n[roots.'/b']\nstride = 'x'": ["stride", 'roots."/b"'],
}


@pytest.mark.parametrize("text", BAD)
def test_what_the_file_may_not_say_is_one_line_with_file_and_key(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        index_options(tmp_path, Path("/a"), {})
    assert all(word in f"{caught.value}; {caught.value.hint}" for word in [str(path), *BAD[text]])
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_a_file_that_can_not_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"[index]\nexclude = ['caf\xe9']")
    with pytest.raises(InputError, match=r"config\.toml is not UTF-8"):
        read_settings(tmp_path)
    (tmp_path / "config.toml").unlink()
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(StoreError, match=r"config\.toml can't be read"):
        read_settings(tmp_path)


# Changes


OLD = """\
# how we index

[index]  # everywhere
clip = 10      # long
exclude = [
    "*.lrf",   # thumbnails of drones
    "proxies/",
]

# the newsroom
[roots."/archive/news"]
clip = 5 # short

[roots."/archive/sport"]
# nothing yet
"""
VALUES = {
    "clip": (["2.5"], 2.5),
    "stride": (["3"], 3),
    "follow": (["true"], True),
    "thumbnails": (["false"], False),
    "workers": (["4"], 4),
    "memory": (["1.5"], 1.5),
    "decoder": (["decord"], "decord"),
    "exclude": (["a b", "!c"], ["a b", "!c"]),
    "include": (['"/é\\\\'], ['"/é\\\\']),
}
FOLDERS = [None, "/archive/news", "/archive/sport", "/new/a b", '/new/"é"']
changes = st.lists(st.tuples(st.sampled_from(FOLDERS), st.sampled_from(sorted(VALUES)), st.booleans()), max_size=6)


@pytest.mark.slow
@settings(max_examples=50)
@given(changes=changes, old=st.sampled_from(["", OLD]))
def test_changes_change_what_they_name_and_keep_all_else_with_its_comments(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str | None, str, bool]], old: str
) -> None:
    store = tmp_path_factory.mktemp("store")
    path = write(store, old)
    expected = tomllib.loads(old)
    for folder, key, sets in changes:
        root = Path(folder) if folder else None
        table = expected.setdefault("roots", {}).setdefault(folder, {}) if folder else expected.setdefault("index", {})
        if sets:
            set_option(store, root, key, VALUES[key][0])
            table[key] = VALUES[key][1]
        elif key in table:
            unset_option(store, root, key)
            del table[key]
        else:
            with pytest.raises(InputError, match=f"no {key} in"):
                unset_option(store, root, key)
        assert said(tomllib.loads(path.read_text())) == said(expected)
    gone = {key for _, key, _ in changes}
    kept = [line for line in old.splitlines() if "#" in line and line.split(" ")[0] not in gone]
    in_list = ["thumbnails of drones"] if "exclude" in gone else []
    text = path.read_text()
    assert all(line in text for line in kept if not any(word in line for word in in_list))


def said(content: dict[str, Any]) -> dict[str, Any]:
    """Content without tables that say nothing."""
    roots = {folder: table for folder, table in content.get("roots", {}).items() if table}
    return {"index": content.get("index", {}), "roots": roots}


@pytest.mark.parametrize(
    ("key", "values", "word"),
    [
        ("clop", ["5"], "clip"),
        ("clip", ["5", "6"], "one value"),
        ("clip", ["five"], "a number"),
        ("clip", ["-5"], "0.1"),
        ("follow", ["yes"], "true or false"),
        ("decode", ["quick"], "exact"),
        ("exclude", ["a["], "no pattern"),
    ],
)
def test_a_value_that_a_run_would_refuse_is_not_written(tmp_path: Path, key: str, values: list[str], word: str) -> None:
    path = write(tmp_path, OLD)
    with pytest.raises(InputError) as caught:
        set_option(tmp_path, None, key, values)
    assert word in f"{caught.value}; {caught.value.hint}"
    assert path.read_text() == OLD


def test_a_change_that_does_not_reach_the_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    path = write(tmp_path, OLD)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        set_option(tmp_path, None, "clip", ["5"])
    assert path.read_text() == OLD


def test_a_folder_that_toml_can_not_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VidxError, match="not UTF-8"):
        set_option(tmp_path, Path(os.fsdecode(b"/caf\xe9")), "clip", ["5"])
    assert not (tmp_path / "config.toml").exists()


# Runs


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    started = ForkServer()
    yield started
    started.close()


@pytest.fixture(scope="module")
def filmed(make_video: MakeVideo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four videos of twenty seconds."""
    folder = tmp_path_factory.mktemp("filmed")
    for number, name in enumerate(["news/1.mp4", "news/proxies/1.mp4", "sport/2.mp4", "sport/2.lrf"]):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tiled_video(make_video, folder / "made.mp4", seed=number, n_clips=2).rename(path)
    return folder


def run(server: ForkServer, *command: Any) -> Finished:
    ended = server.run([str(word) for word in command])
    assert (ended.code, ended.errors) == (0, ""), ended
    return ended


def indexed(server: ForkServer, root: Path, store: Path, *more: str) -> tuple[dict[str, str], dict[str, Any]]:
    """State and reason of every entry by its path below the root, and the account."""
    events = [json.loads(line) for line in run(server, *index_command(root, store, *more)).printed.splitlines()]
    told = {os.path.relpath(event["path"], root): event["reason"] or event["state"] for event in events[:-1]}
    return told, events[-1]


def recorded(store: Path) -> dict[str, Any]:
    """The options of the last run."""
    [(options,)] = Snapshot(Store.open(store)).rows("SELECT options FROM runs ORDER BY started_at DESC LIMIT 1")
    return json.loads(options)


@pytest.mark.slow
def test_runs_take_patterns_and_plans_of_their_folder_and_record_them(
    filmed: Path, server: ForkServer, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    for words in (["exclude", "proxies/", "*.lrf"], ["--root", filmed / "news", "clip", "5"]):
        run(server, "vidx", "config", "set", "--store", store, *words)
    told, done = indexed(server, filmed / "news", store)
    assert told == {"1.mp4": "indexed", "proxies": "excluded"}
    assert (done["files"], done["skipped"], done["clips"]) == (1, 1, 4)
    options = recorded(store)
    assert (options["exclude"], options["clip_s"]) == (["proxies/", "*.lrf"], 5)
    assert options["from_file"] == ["exclude", "clip_s"]

    told, done = indexed(server, filmed, store)
    assert told == {
        "news/1.mp4": "unchanged",
        "news/proxies": "excluded",
        "sport/2.mp4": "indexed",
        "sport/2.lrf": "excluded",
    }
    assert (done["skipped"], done["clips"]) == (2, 2)
    assert recorded(store)["clip_s"] is None

    told, _ = indexed(server, filmed, store, "--exclude", "sport/", "--include", "1.*")
    assert told == {"news/1.mp4": "unchanged", "news/proxies/1.mp4": "indexed", "sport": "excluded"}


@pytest.mark.slow
def test_what_is_excluded_later_stays_in_the_store_and_is_not_missing(
    filmed: Path, server: ForkServer, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    indexed(server, filmed, store)
    before = live(store)
    told, done = indexed(server, filmed, store, "--exclude", "sport")
    assert told["sport"] == "excluded"
    assert (done["files"], done["skipped"], done["missing"]) == (2, 1, 0)
    assert live(store) == before


def live(store: Path) -> list[tuple[Any, ...]]:
    snapshot = Snapshot(Store.open(store))
    return snapshot.rows(
        "SELECT path, files.state, clip_id FROM files JOIN newest USING (video_id), "
        f"{snapshot.clips(Store.open(store).spaces()[0])} AS c WHERE c.video_id = files.video_id ORDER BY ALL"
    )


@pytest.mark.slow
def test_a_clip_in_the_file_is_for_new_videos_until_the_command_line_says_otherwise(
    filmed: Path, server: ForkServer, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    indexed(server, filmed, store, "--include", "news/1.mp4")
    run(server, "vidx", "config", "set", "--store", store, "clip", "5")
    told, done = indexed(server, filmed, store, "--exclude", "sport")
    assert told["news/1.mp4"] == "unchanged"
    assert done["clips"] == 4  # of the new video alone
    assert indexed(server, filmed, store, "--exclude", "sport", "--clip", "5")[0]["news/1.mp4"] == "indexed"


@pytest.mark.slow
def test_config_prints_the_effective_options_by_folder_as_toml_and_as_json(server: ForkServer, tmp_path: Path) -> None:
    store = tmp_path / "store"
    run(server, "vidx", "config", "set", "--store", store, "exclude", "*.lrf", "proxies/")
    path = write(store, (store / "config.toml").read_text() + '[roots."/a/news/"]\nclip = 5\n')
    printed = run(server, "vidx", "config", "--store", store).printed
    assert printed.startswith(f"# {path}\n")
    everywhere = {"exclude": ["*.lrf", "proxies/"]}
    roots = {"/a/news": {**everywhere, "clip": 5}}
    assert tomllib.loads(printed) == {"index": everywhere, "roots": roots}
    as_json = json.loads(run(server, "vidx", "config", "--store", store, "--json").printed)
    assert as_json == {"file": str(path), "index": everywhere, "roots": roots}
    run(server, "vidx", "config", "--store", store, "unset", "--root", "/a/news", "clip")
    assert tomllib.loads(run(server, "vidx", "config", "--store", store).printed) == {"index": everywhere}


@pytest.mark.slow
def test_a_bad_file_or_pattern_is_one_line_and_no_run(filmed: Path, server: ForkServer, tmp_path: Path) -> None:
    store = tmp_path / "store"
    one_line(server.run(index_command(filmed, store, "--exclude", "a[")), 2, "'a['", "no pattern")
    assert not store.exists()
    run(server, "vidx", "config", "set", "--store", store, "clip", "5")
    path = write(store, "[index]\nclips = 5\n")
    for command in (index_command(filmed, store), ["vidx", "config", "--store", str(store)]):
        one_line(server.run(command), 2, str(path), "clips", "clip")
    assert Snapshot(Store.open(store)).rows("SELECT * FROM runs") == []


@pytest.mark.skipif(not encoders.spec("conse").is_here, reason="needs the weights of the conse extra")
def test_python_takes_the_file_too(tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "a.txt").write_text("x")
    (folder / "b.txt").write_text("y")
    write(Store.create(tmp_path / "store").path, "[index]\nexclude = ['a*']\n")
    archive = open_archive(tmp_path / "store")
    assert archive.index(folder)["skipped"] == 1
    assert archive.index(folder, exclude="*.txt")["skipped"] == 2
