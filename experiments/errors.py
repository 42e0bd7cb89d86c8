"""The one exception that a user may see without a traceback."""


class BenchError(Exception):
    """A mistake of the user's or a lack of the machine's that one line explains.

    It is no trial's fault: the executor lets it end the run, and the command line prints it.
    """
