"""The cache of clients that passed: reference section 7, on LMDB with msgpack values."""
