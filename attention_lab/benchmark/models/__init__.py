"""Whole models beside those that users have: training steps, generation, and the start of a run."""
