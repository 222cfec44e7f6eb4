"""What each command does, a file each, named as the command. `pipeline/commands/` says what may be typed."""
