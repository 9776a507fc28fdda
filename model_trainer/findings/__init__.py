"""What a rule noticed, its evidence, and the change that it suggests."""
