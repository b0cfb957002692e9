"""Sessions and services in a SQLite file."""
