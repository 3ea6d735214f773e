"""Stepping: a graph as a list of events, forward and backward, and what there is to say of each."""
