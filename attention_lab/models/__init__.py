"""Models around the attention variants: the only floor that imports flax, and it only for modules that hold parameters."""
