"""Budgets of a comparison: the costs of its rows, and the matching of their sizes."""
