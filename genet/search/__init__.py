"""The search: the regression on trials, the best networks within a budget, their certificates, and the race; no torch."""
