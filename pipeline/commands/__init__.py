"""The commands, one light file per command: options, summary and example. `pipeline/actions/` does the work."""
