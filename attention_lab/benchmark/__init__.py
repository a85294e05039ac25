"""Benchmarks of variants and whole models on this device: time and memory side by side, with intervals."""
