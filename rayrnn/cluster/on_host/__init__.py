"""Programs that run on another host."""
