"""What networks cost on a device: the latency table, what it is measured with, and what is predicted from it."""
