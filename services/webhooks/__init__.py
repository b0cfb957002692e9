"""Telling a URL that a turn has ended."""
