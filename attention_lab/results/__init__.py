"""Results of runs: records, provenance, statistics, figures and pages."""
