"""From folders to vectors in the store: walk, probe, plan, decode, encode, commit. Knows nothing of queries."""
