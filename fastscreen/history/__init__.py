"""The history: every session as a record, one SQLite file per day."""
