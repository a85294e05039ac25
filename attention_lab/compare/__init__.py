"""The comparison: grid, ledger, statistics and report."""
