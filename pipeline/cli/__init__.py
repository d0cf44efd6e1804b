"""The command line: arguments, exit codes, words for a person."""
