"""Sessions and services in a PostgreSQL database."""
