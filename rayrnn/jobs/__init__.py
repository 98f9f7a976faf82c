"""Runs on a cluster of other hosts: what travels there, the Ray job that trains, and what comes back."""
