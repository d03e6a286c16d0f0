"""Short trainings of perturbed networks: which, by whom, and what they leave in the journal."""
