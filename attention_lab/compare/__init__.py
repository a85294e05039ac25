"""Comparisons of attention variants: their plan and schedule, budgets, execution and report."""
