"""How fast, and with how much memory, variants run on this device: measured side by side, said with intervals."""
