"""What runs inside a box: the tool server, and what its image is built from."""
