"""fastscreen demo: a screener on loopback, clients of every kind, lists that know them, and the view on top."""
