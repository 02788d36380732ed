"""Search strategies: pure functions from what is known to the next step."""
