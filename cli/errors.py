"""Errors that end the `penstock` command with a message instead of a traceback."""


class UsageError(Exception):
    """The command cannot do what was asked; exit status 2.

    Args:
        messages: one per problem, each naming what was found, what was expected and the fix.
    """

    def __init__(self, *messages: str) -> None:
        self.messages = messages
        super().__init__("\n".join(messages))
