"""A trained network in the formats of other runtimes; each is loaded again and compared before it counts."""
