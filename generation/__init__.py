"""AI generation: provider keys, single texts, jobs of thousands, and their progress."""
