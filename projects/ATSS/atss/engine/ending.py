"""An end of training before its last iteration that is no error."""


class EndOfTraining(BaseException):
    """Ends training; its text says why.

    Args:
        reason: text.
        finished: whether there is nothing left to train.
    """

    def __init__(self, reason, finished=True):
        super().__init__(reason)
        self.finished = finished
