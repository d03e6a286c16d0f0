"""How well networks use a device: throughput, utilization, arithmetic intensity, and their frontiers."""
