"""One trainer for every command that trains a network."""
