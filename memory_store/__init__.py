"""The memory store: blocks of KV, their summaries and stream states in LMDB, searched through FAISS."""
