"""Access to users' files, local or remote, retries, and requests to stop."""
