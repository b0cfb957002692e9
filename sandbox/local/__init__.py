"""Boxes on this machine, made with bubblewrap: no engine is needed."""
