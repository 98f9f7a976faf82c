"""Runs on a cluster of other hosts: what travels there, the job, what comes back."""
