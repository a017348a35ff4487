"""Programs that time this package's operators against what a user would pick instead."""
