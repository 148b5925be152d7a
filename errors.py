"""The one exception that a run shows as a sentence instead of a traceback."""


class UserError(Exception):
    """A failure the user can mend; the message says what is wrong, where, and what to do."""
