"""Sessions and services on a Redis server."""
