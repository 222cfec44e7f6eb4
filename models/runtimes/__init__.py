"""What executes a network."""
