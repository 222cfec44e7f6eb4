"""What can be asked for, a file each. A command is imported when it is asked for."""
