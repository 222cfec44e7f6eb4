"""One engine for every command that trains a network."""
