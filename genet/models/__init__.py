"""Networks as torch modules: blocks, weights, and networks that other code builds."""
