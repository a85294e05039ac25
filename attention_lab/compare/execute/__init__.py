"""Execution of a comparison: the setup of its tasks, its runs and their processes, and a row verified anew."""
