"""Short trainings of perturbed networks: their plan, their runners, and their results in the journal."""
