"""Reads the configuration and cache of postscreen, so that fastscreen can replace it."""
