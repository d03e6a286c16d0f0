"""A run as a page, its figures as data first and drawings second, and the cards of its networks."""
