"""Media files: bytes in a storage, facts about them in PostgreSQL, and links by which browsers fetch them."""
