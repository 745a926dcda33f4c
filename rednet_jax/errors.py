"""The exception for user errors."""

_LONGEST = 1500
"""Maximum number of characters of a message, which may quote a file."""


class RednetError(ValueError):
    """A user error, with a message of one line that names the file or option and the cause.

    Line breaks in the message become blanks, other control characters are escaped, and the middle
    of a very long message is left out.
    """

    def __init__(self, message: str = "") -> None:
        """Creates the exception with a message."""
        line = " ".join(message.splitlines())
        if len(line) > _LONGEST:
            line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
        printable = (char if char.isprintable() else ascii(char)[1:-1] for char in line)
        super().__init__("".join(printable))
