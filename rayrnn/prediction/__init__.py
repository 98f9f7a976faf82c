"""What a trained run says of sequences, and how good that is."""
