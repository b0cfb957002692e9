"""What sessions leave between turns: in memory, or in a storage that several processes share."""
