"""Users' files wherever they are, retries, and requests to stop."""
