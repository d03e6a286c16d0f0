"""Can a cheap figure stand for accuracy in a search (utilization paper, section 4)? Searches on a table of a whole space."""
