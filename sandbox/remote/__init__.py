"""A box that runs elsewhere, at a URL."""
