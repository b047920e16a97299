"""What a person can cause: one family of errors, each with a sentence that says what to do next."""


class EmberDemoError(Exception):
    """Bad input or a machine that is too small; the message is fit to be shown as it is."""


class ModelError(EmberDemoError):
    """A model that cannot be found, opened or fitted into memory."""


class ConceptError(EmberDemoError):
    """A concept that is unknown, or has too few texts or questions for what was asked."""


class EditError(EmberDemoError):
    """An edit that cannot be read, or does not belong to the loaded model."""


class Stopped(EmberDemoError):
    """Raised inside long work whose caller asked it to stop; the model is restored on the way out."""
