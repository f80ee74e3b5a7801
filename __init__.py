"""vidx: make a large private video archive searchable by what happens in it, offline."""

__version__ = "0.1.0"
