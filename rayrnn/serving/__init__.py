"""A run behind HTTP: texts written for many at once, rows answered, sequences followed step by step."""
