"""What a person can cause: one family of errors, each with a sentence that says what to do next."""


class EmberDemoError(Exception):
    """Bad input or a machine that is too small; the message is fit to be shown as it is."""


class ArgumentError(EmberDemoError):
    """A name that there is not, or a value that cannot be taken, for something to be given: an eraser, an attack, a setting, a seed."""


class ModelError(EmberDemoError):
    """A model that cannot be found, opened or fitted into memory."""


class ConceptError(EmberDemoError):
    """A concept that is unknown, or has too few texts or questions for what was asked."""


class UnknownConcept(ConceptError, ArgumentError):
    """A name that no pack has."""


class EditError(EmberDemoError):
    """An edit that cannot be read, or does not belong to the loaded model."""


def out_of_memory(error):
    """Whether the machine, or its GPU, had no room for what was asked."""
    return (
        isinstance(error, MemoryError)
        or isinstance(error, RuntimeError)
        and any(words in str(error) for words in ("out of memory", "allocate memory", "ALLOC_FAILED"))
    )


NO_ROOM = "There was not enough memory for this step; the model is as it was. Load it in 4 bit, or choose a smaller one."


class Stopped(EmberDemoError):
    """Raised inside long work whose caller asked it to stop; the model is restored on the way out."""
