"""Where sequences come from, and how they become minibatches."""
