"""A language model on this machine, for trying things without a key."""
