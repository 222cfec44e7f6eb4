"""From the sorted parts of all blocks to the final tables and the submission."""
