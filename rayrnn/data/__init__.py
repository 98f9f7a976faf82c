"""Where sequences come from, and how they become minibatches."""

#: what a text can be cut into
UNITS = ("characters", "words", "pieces")
