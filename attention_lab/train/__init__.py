"""Training of any task: state, step, loop, optimizer, checkpoints and records. No model, variant or task is named here."""
