"""Models around the attention variants: the only floor that imports flax, for modules that hold parameters."""
