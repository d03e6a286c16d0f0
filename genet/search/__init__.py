"""Thinking: what trials teach, which networks are best within a budget, how sure that is, and the race; no torch."""
