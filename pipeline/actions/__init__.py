"""What the commands do, one file per command, named after it. `pipeline/commands/` declares their flags."""
