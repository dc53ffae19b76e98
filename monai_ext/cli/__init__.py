"""The command line: one module a verb, thin; the rooms do the work."""
