"""Options of `vidx index` that a store keeps in its config.toml, for all folders and for single ones."""

from __future__ import annotations

import difflib
import math
import os
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from vidx.config import IndexOptions
from vidx.errors import InputError, StoreError
from vidx.indexer.patterns import Selection
from vidx.schema.files import write_atomically

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

# Long options of `vidx index` that say how a folder is indexed, and the fields of IndexOptions they are.
KEYS = {
    "clip": "clip_s",
    "stride": "stride_s",
    "segment": "segment",
    "skip-still": "skip_still",
    "decode": "decode",
    "decoder": "decoder",
    "include": "include",
    "exclude": "exclude",
    "follow": "follow",
    "thumbnails": "thumbnails",
    "workers": "workers",
    "stall": "stall_s",
    "memory": "memory_bytes",
}
_UNITS = {"memory": 2**30}  # of keys whose field has another unit
_PLAN = frozenset({"clip", "stride", "segment"})  # belong together: a stride beside another clip could leave gaps
_PATTERNS = frozenset({"include", "exclude"})


@dataclass(frozen=True)
class Settings:
    """Content of a config.toml, checked: options under their keys, with the values that the file has."""

    path: Path
    everywhere: dict[str, Any]
    by_root: dict[str, dict[str, Any]]  # folders are absolute; none without options

    def of(self, folder: str) -> tuple[str | None, dict[str, Any]]:
        """The nearest folder, this one or one above, that has options of its own, and what holds there."""
        for root in (folder, *map(str, Path(folder).parents)):
            if root in self.by_root:
                own = self.by_root[root]
                return root, _left(self.everywhere, own, _PLAN) | own
        return None, self.everywhere


def config_path(store_path: Path) -> Path:
    """Where the file of a store is, or would be."""
    return store_path.absolute() / "config.toml"


def read_settings(store_path: Path) -> Settings:
    """The settings of a store; empty where it has no file. Raises InputError or StoreError."""
    path = config_path(store_path)
    return checked(path, read_text(path))


def index_options(store_path: Path, root: Path, given: dict[str, Any]) -> IndexOptions:
    """The options of a run over an absolute `root`: those given, as fields of IndexOptions, before those of the file.

    Patterns given count from the root, those of the file from the folder whose table holds. Raises VidxError.
    """
    base, named = read_settings(store_path).of(str(root))
    named = _left(named, [key for key, field in KEYS.items() if field in given], _PLAN, _PATTERNS)
    fields = _fields(named)
    patterns_from = base if _PATTERNS & named.keys() else None
    options = IndexOptions(**{"patterns_from": patterns_from, "from_file": tuple(fields), **fields, **given})
    Selection(root, options.include, options.exclude, options.patterns_from)  # which raises what is wrong with them
    return options


def read_text(path: Path) -> str:
    """The file's text, "" where there is none. Raises InputError or StoreError."""
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8", hint="save it as UTF-8") from None
    except OSError as error:
        raise StoreError(
            f"{path} can't be read: {error.strerror}", hint="mend its permissions, or remove it"
        ) from error


def checked(path: Path, text: str) -> Settings:
    """The settings that a text has. Raises InputError, naming file and key."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not TOML: {error}", hint="mend it there") from None
    for name in content:
        if name not in ("index", "roots"):
            raise InputError(f"{path}: there is no [{name}]", hint='write [index], or [roots."/a/folder"]')
    everywhere = _table(path, "index", content.get("index", {}), {})
    by_root: dict[str, dict[str, Any]] = {}
    for folder, table in _is_table(path, "roots", content.get("roots", {})).items():
        name, root = f'roots."{folder}"', os.path.normpath(folder)
        if not os.path.isabs(folder):
            raise InputError(f"{path}: [{name}] is no absolute folder", hint="write where it is from / on")
        if root in by_root:
            raise InputError(f"{path}: [roots] has {root} twice", hint="put the options into one table")
        by_root[root] = _table(path, name, table, everywhere)
    return Settings(path, everywhere, {root: table for root, table in by_root.items() if table})


def _table(path: Path, name: str, table: Any, below: dict[str, Any]) -> dict[str, Any]:
    """A table of options that hold before those `below`. Raises InputError."""
    for key in _is_table(path, name, table):
        if key not in KEYS:
            close = difflib.get_close_matches(key, KEYS) or KEYS
            raise InputError(f"{path}: there is no option {key} for [{name}]", hint=f"choose from: {', '.join(close)}")
    try:
        _try(_left(below, table, _PLAN) | table)
    except InputError as error:
        for key in table:
            _try({key: table[key]}, f"{path}: {key} of [{name}]: ")
        raise InputError(f"{path}: [{name}]: {error}", hint=error.hint) from None
    return dict(table)


def _is_table(path: Path, name: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise InputError(f"{path}: {name} is no table", hint=f"write [{name}], and its options below")
    return given


def _try(named: dict[str, Any], where: str = "") -> None:
    """Raises InputError for options that can't be."""
    try:
        options = IndexOptions(**_fields(named))
        Selection(Path("/"), options.include, options.exclude)
    except InputError as error:
        raise InputError(f"{where}{error}", hint=error.hint) from None


def _fields(named: dict[str, Any]) -> dict[str, Any]:
    """Options under the names and in the units that IndexOptions has for them. Raises InputError."""
    return {KEYS[key]: _in_unit(key, value) for key, value in named.items()}


def _in_unit(key: str, value: Any) -> Any:
    if key not in _UNITS:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{key} can't be {value!r}", hint=f"give a number, as `vidx index --{key}` takes it")
    return round(value * _UNITS[key])


def _left(below: dict[str, Any], named: Collection[str], *together: frozenset[str]) -> dict[str, Any]:
    """What is left of options when others are `named`: neither those nor what belongs together with one of them."""
    gone = {*named, *(key for group in together if not group.isdisjoint(named) for key in group)}
    return {key: value for key, value in below.items() if key not in gone}


def set_option(store_path: Path, root: Path | None, key: str, values: Sequence[str]) -> None:
    """Write an option of all folders, or of one, into the file of a store; the rest of it stays as it is.

    Raises InputError or StoreError.
    """
    import tomlkit

    path = config_path(store_path)
    if key not in KEYS:
        close = difflib.get_close_matches(key, KEYS) or KEYS
        raise InputError(f"there is no option {key!r} to set", hint=f"choose from: {', '.join(close)}")
    document = _document(path)
    table = _table_of(document, root)
    if table is None:
        table = tomlkit.table()
        if root is None:
            document["index"] = table
        else:
            document.setdefault("roots", tomlkit.table(is_super_table=True))[_printable(root)] = table
    table[key] = _value(key, values)
    _write(path, document)


def unset_option(store_path: Path, root: Path | None, key: str) -> None:
    """Take an option out of the file; a table that is left empty says nothing. Raises InputError or StoreError."""
    path = config_path(store_path)
    document = _document(path)
    table = _table_of(document, root)
    if table is None or key not in table:
        where = "[index]" if root is None else f'[roots."{root}"]'
        raise InputError(f"{path}: there is no {key} in {where}", hint="`vidx config` lists what there is")
    del table[key]
    _write(path, document)


def _document(path: Path) -> TOMLDocument:
    """The file as tomlkit has it, checked. Raises InputError or StoreError."""
    import tomlkit

    text = read_text(path)
    checked(path, text)
    return tomlkit.parse(text)


def _table_of(document: TOMLDocument, root: Path | None) -> Any:
    """The table of a folder, None: of all; None if there is none."""
    if root is None:
        return document.get("index")
    roots = document.get("roots", {})
    return next((roots[name] for name in roots if os.path.normpath(name) == str(root)), None)


def _printable(root: Path) -> str:
    """A folder as TOML can have it. Raises InputError."""
    try:
        return os.fsencode(root).decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{root} can't be named in TOML: it is not UTF-8", hint="name a folder above it") from None


def _value(key: str, values: Sequence[str]) -> Any:
    """What a command line says, as TOML has it. Raises InputError."""
    kind = get_type_hints(IndexOptions)[KEYS[key]]
    if get_origin(kind) is tuple:
        return list(values)
    if len(values) != 1:
        raise InputError(f"{key} takes one value", hint=f"`vidx config unset {key}` takes it out")
    [text] = values
    kinds = {kind, *get_args(kind)}
    if bool in kinds:
        if text not in ("true", "false"):
            raise InputError(f"{key} can't be {text!r}", hint="give true or false")
        return text == "true"
    if kinds & {int, float}:
        try:
            return int(text) if text.lstrip("+-").isdecimal() else float(text)
        except ValueError:
            raise InputError(f"{key} can't be {text!r}", hint="give a number") from None
    return text


def _write(path: Path, document: TOMLDocument) -> None:
    """Raises InputError for what a run would refuse, StoreError where the file can't be written."""
    text = document.as_string()
    checked(path, text)
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise StoreError(f"can't write {path}: {error.strerror}", hint="free some space or mend the disk") from error
