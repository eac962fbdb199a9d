"""The bundle: manifest schema, reading, and the hash check that comes before any use."""
