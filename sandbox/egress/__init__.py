"""The egress filter: the one way out of a box."""
