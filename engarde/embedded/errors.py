"""What can go wrong before the platform's own code runs."""


class StartFailed(Exception):
    """A service or program cannot run; the message says why and what to do, in words for the person at the shell."""
