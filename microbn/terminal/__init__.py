"""Stepping in a terminal: keys, the screen, the loop between them, and all steps as plain text."""
