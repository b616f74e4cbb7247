"""What drives training, evaluation and report together: one run, and many side by side."""
