"""Averaging: the workers' parameters become one, by a mean and an outer rule."""
