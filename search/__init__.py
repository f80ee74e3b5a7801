"""From a question to hits: query, retrieve, moments. Never decodes."""
