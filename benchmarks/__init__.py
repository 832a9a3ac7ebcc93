"""The numbers, side by side with peers, each comparison in one run."""
