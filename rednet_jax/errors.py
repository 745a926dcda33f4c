"""The one exception for what the user got wrong."""


class RednetError(ValueError):
    """What the user got wrong, in one line that names the file or option and the cause."""
