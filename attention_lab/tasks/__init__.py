"""What a model is trained to do: one file = one task, found by its name through `base.load`."""
