"""The journal: what was received, what became of it, and who was told. SQLite, in WAL mode, synced at each commit."""
