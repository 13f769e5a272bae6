"""A local ZeroDB: the documented tables API, strictly, with its data in one SQLite file.

For development and tests. `docs` of the real service leave gaps; where they do, the modules here say which reading they took.
"""
