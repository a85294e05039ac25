"""The work behind the binaries: one training run, a cross-validation, the matrix of architectures and variants."""
