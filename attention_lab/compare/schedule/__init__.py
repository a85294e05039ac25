"""The schedule of a comparison: grid, protocol, search space and suites, and the scheduler of its jobs."""
