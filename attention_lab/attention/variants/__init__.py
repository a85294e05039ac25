"""One file, one variant, one name. Nothing is registered: the file name is the name in a spec."""
