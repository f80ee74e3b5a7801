"""The ground floor: the records that pass between stages, the tables, and the store. Knows nothing of torch or FAISS."""
