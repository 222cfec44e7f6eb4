"""Two finished runs side by side: what differs, how much, and pictures of it."""
