"""The run directory, its checkpoints, and their copies in stores."""
