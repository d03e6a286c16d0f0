"""A trained network in the forms that others run; each is loaded again and compared before it counts."""
