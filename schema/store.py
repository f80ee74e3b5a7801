"""A store on disk: made and opened. Reading is in `vidx.schema.snapshot`, writing in `vidx.schema.writer`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from vidx.errors import InputError, StoreDamaged, StoreError, StoreMissing, StoreTooNew
from vidx.schema.files import write_atomically
from vidx.schema.spaces import Space, read_space

FORMAT = 1
_FOLDERS = ("spaces", "clips", "tags", "index", "logs")


@dataclass(frozen=True)
class StoreFacts:
    """Content of store.json."""

    format: int = FORMAT
    default_space: str | None = None
    next_clip_id: int = 0  # ids below this are taken


class Store:
    """A folder that holds one store. `Store.open` and `Store.create` are the ways to get one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> Store:
        """Open the store at `path`, making an empty one where there is none.

        Raises StoreError where `path` is a folder with other content, or can't be written.
        """
        from filelock import FileLock

        from vidx.schema.tables import SINGLE, create_table

        path = _checked(path)
        if (path / "store.json").exists():
            return cls.open(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            # What an interrupted `create` left is completed, not refused.
            expected = {*SINGLE, *_FOLDERS, "features", "lock", "lock.json", "store.json", "store.json.new"}
            if strangers := sorted(entry.name for entry in path.iterdir() if entry.name not in expected):
                raise StoreError(
                    f"{path} is no store and not empty (it holds {strangers[0]})", hint="name an empty or new folder"
                )
            with FileLock(path / "lock"):
                if not (path / "store.json").exists():  # another process may have been quicker
                    for folder in _FOLDERS:
                        (path / folder).mkdir(exist_ok=True)
                    for name, schema in SINGLE.items():
                        create_table(path / name, schema)
                    cls(path).write_facts(StoreFacts())  # last: a folder without store.json is not yet a store
        except OSError as error:
            raise StoreError(
                f"can't make a store at {path}: {error.strerror}", hint="name another with --store"
            ) from error
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Store:
        """Raises StoreMissing, StoreTooNew or StoreDamaged."""
        store = cls(_checked(path))
        store.facts()
        return store

    def facts(self) -> StoreFacts:
        """store.json as it is on disk now."""
        path = self.path / "store.json"
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            version = fields["format"]
            if version <= FORMAT:
                return StoreFacts(**fields)
        except (FileNotFoundError, NotADirectoryError):
            raise StoreMissing(
                f"nothing is indexed yet: no store at {self.path}", hint="run `vidx index FOLDER` first"
            ) from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StoreDamaged(
                f"{path} can't be read ({error})", hint="restore it from a backup of the store"
            ) from error
        raise StoreTooNew(
            f"the store at {self.path} has format {version}, this vidx reads up to {FORMAT}",
            hint="install a newer vidx",
        )

    def write_facts(self, facts: StoreFacts) -> None:
        """Durable when it returns. Only the holder of the write lock may call it."""
        write_atomically(self.path / "store.json", json.dumps(asdict(facts), indent=1).encode())

    def space(self, name: str) -> Space:
        """The space of that name. Raises StoreDamaged."""
        return read_space(self.path / "spaces", name)

    def find_space(self, name: str) -> Space:
        """The space of that name, or the only one of that encoder. Raises InputError, naming those there are."""
        spaces = [self.space(known) for known in self.spaces()]
        known_as = (name, name.removeprefix("microsoft/"))  # X-CLIP's may be named as on Hugging Face
        found = [space for space in spaces if space.name == name or space.encoder in known_as]
        if len(found) == 1:
            return found[0]
        known = ", ".join(f"{space.name} (of {space.encoder})" for space in found or spaces) or "none yet"
        if found:
            raise InputError(f"several spaces of {name} are in {self.path}", hint=f"name one: {known}")
        raise InputError(
            f"nothing in {self.path} was indexed with {name}",
            hint=f"`vidx index FOLDER --encoder {name}` does it; there is: {known}",
        )

    def tag_sets(self) -> list[str]:
        """Names of the sets of tags, in alphabetical order."""
        return sorted({entry.parents[1].name for entry in (self.path / "tags").glob("*/_delta_log/*.json")})

    def spaces(self) -> list[str]:
        """Names of all spaces that anything was indexed in."""
        return sorted(path.stem for path in (self.path / "spaces").glob("*.json"))


def _checked(path: Path) -> Path:
    """The absolute form of a store's path. Raises StoreError for characters that Delta or DuckDB can't take as such."""
    path = path.absolute()
    if found := [c for c in str(path) if c in "%[]*?\\" or not c.isprintable()]:
        raise StoreError(
            f"a store can't lie at {path}: its tables can't be read below a name with {found[0]!r}",
            hint="name another with --store",
        )
    return path
