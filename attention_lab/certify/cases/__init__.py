"""One file per variant: `SPECS`, small specs that show its character, and `oracle`, a float64 loop reference."""
