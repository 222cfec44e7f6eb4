"""The submission file: its rules, the sample it may follow, and its writer."""
