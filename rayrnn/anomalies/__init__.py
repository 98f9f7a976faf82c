"""What is out of the ordinary in a sequence: scores, thresholds, events, and how good these are. No Ray."""
