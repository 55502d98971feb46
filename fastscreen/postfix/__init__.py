"""Postfix's own configuration and cache, read so that fastscreen can take postscreen's place."""
