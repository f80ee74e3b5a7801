"""vidx: make a large private video archive searchable by what happens in it, offline.

archive = vidx.open("store")
archive.index("/archive")
for hit in archive.search("a person climbing stairs").hits:
    print(hit.path, hit.start_s, hit.end_s)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidx.api import open_archive as open

__version__ = "0.1.0"
__all__ = ["open"]


def __getattr__(name: str) -> Any:
    """Nothing is imported before it is asked for: `import vidx` takes no time."""
    if name == "open":
        from vidx.api import open_archive

        return open_archive
    raise AttributeError(f"module 'vidx' has no attribute {name!r}")
