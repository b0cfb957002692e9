"""Boxes in containers: Docker, or Podman's socket."""
