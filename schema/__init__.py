"""The ground floor: records, tables and the store. Knows nothing of torch or FAISS."""
