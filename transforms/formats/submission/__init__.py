"""The submission file: its rules, the sample it may follow, and writing it."""
