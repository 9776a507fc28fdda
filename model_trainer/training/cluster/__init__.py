"""Several machines: how a process finds the others, and what starts it again when one of them is lost."""
