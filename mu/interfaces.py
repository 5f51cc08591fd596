"""The zope interfaces that plugins provide. The registry checks them with verifyObject."""

from zope.interface import Attribute, Interface

__all__ = ["IEngine", "IPipeline", "IState"]


class IState(Interface):
    """One step of an actor: handles an event and returns the next state, or itself.

    A state must be pure: the same events give the same commands at any time.
    mu.states.State is the base class to derive from.
    """

    label = Attribute("The state's name for users: a short str.")

    def receive(event, send):  # type: ignore[no-untyped-def]
        """Handle an event and return the next state, or self. `send(command)` sends a command.

        `event` is one of those in mu.events. The last state is a mu.states.TerminalState or an
        ErrorState. Raises mu.states.Held for a reply that should be offered again later.
        """


class IPipeline(Interface):
    """A kind of job.

    mu.plugins.Pipeline is the base class to derive from. It also has the optional members.
    """

    name = Attribute("The name by which orders select it: a unique str.")
    description = Attribute("One sentence for users.")
    parameters = Attribute("A sequence of mu.parameters.Parameter.")

    def plan(params):  # type: ignore[no-untyped-def]
        """Return a list with one dict of JSON values for each actor, its input, or a Staged."""

    def begin(worker):  # type: ignore[no-untyped-def]
        """Return the first state of an attempt at an actor, or a script."""

    def finish(job, outcomes):  # type: ignore[no-untyped-def]
        """Return the job's result, a JSON value."""


class IEngine(Interface):
    """A way to start workers.

    mu.plugins.Engine is the base class to derive from. It also has the optional members.
    """

    name = Attribute("The name by which orders select it: a unique str.")

    def launch(invocation):  # type: ignore[no-untyped-def]
        """Start one worker; return a Deferred of the answer, which never fails."""

    def cancel(job_id):  # type: ignore[no-untyped-def]
        """Drop what is queued for a job, if the engine can; return a Deferred of None."""
