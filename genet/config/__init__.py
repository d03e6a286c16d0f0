"""Files that users write: recipes and other YAML files, read into records with every fault of a file at once; no torch."""
