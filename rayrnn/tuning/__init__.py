"""Searching a recipe's settings: trials, each an ordinary run."""
