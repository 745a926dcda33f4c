"""The one exception for what the user got wrong."""

_LONGEST = 1500
"""Characters of a message at most: it may quote a file."""


class RednetError(ValueError):
    """What the user got wrong, in one line that names the file or option and the cause.

    The message is made one line that a terminal can show: line breaks become blanks, other control
    characters escapes, and the middle of a very long one is left out.
    """

    def __init__(self, message: str = "") -> None:
        """Of a message."""
        line = " ".join(message.splitlines())
        if len(line) > _LONGEST:
            line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
        shown = (one if one.isprintable() else ascii(one)[1:-1] for one in line)
        super().__init__("".join(shown))
