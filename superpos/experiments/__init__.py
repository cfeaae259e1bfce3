"""One module per section of the book: its settings, conditions, runs and values for the claims."""
