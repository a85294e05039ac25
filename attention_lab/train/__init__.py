"""Training of any task: state, step, loop, optimizer, checkpoints, records. No model, variant or task is named here."""
