"""A run is a folder: what is written to it, read from it, reported and compared."""
