"""How fast Greenroom is, as ratios to a bare aiohttp handler that writes the same bytes."""
