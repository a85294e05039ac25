"""What a comparison consists of: its grid, protocol, search space, suites, and which jobs come next."""
