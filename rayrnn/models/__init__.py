"""Networks: torch modules of plain arguments and tensors."""
