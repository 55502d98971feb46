"""Programs for developers, not installed: `make docs` runs them."""
