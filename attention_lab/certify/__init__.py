"""The certificate: every claim of a variant proved from the outside, or refuted by a counter-example."""
