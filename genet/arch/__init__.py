"""Networks, super-blocks and search spaces as records, with their notation and their cost; no torch."""
