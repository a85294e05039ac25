"""What a row of a comparison costs, and how its sizes are matched to a budget."""
