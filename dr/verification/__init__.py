"""The parts of verification: what PostgreSQL has, the comparison with each tier, and what is kept of what was found."""
