"""Settings and tables compiled for the core."""
