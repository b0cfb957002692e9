"""Building the image of boxes."""
