"""Training: the loop of a worker, who takes part, the driver, what the user sees."""
