"""What tasks have in common; no task itself."""
