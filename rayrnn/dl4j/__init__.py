"""What Deeplearning4j keeps of a network, read and written without Java."""
