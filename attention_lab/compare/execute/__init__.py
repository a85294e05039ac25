"""Running a comparison: the jobs of its rows, the worker pool, and a row verified anew."""
