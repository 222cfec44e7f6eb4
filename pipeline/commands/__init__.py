"""What may be typed, a light file each: options, summary and example. `pipeline/actions/` does the work."""
