"""All methods side by side: the table, the figures, the alpha sweep, one HTML report."""
