"""What a network is asked: losses, metrics, answers."""
