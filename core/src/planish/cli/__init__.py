"""The command line: ``app`` puts the verbs together, and each verb has a file of its own."""
