"""Commands: one file each, which parses, calls and prints."""
