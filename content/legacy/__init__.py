"""Bringing content over from the platform that came before this one."""
