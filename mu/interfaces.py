"""The interfaces that third parties implement."""

from zope.interface import Attribute, Interface


class IState(Interface):
    """One step of an actor: handles one event and returns the next state, or itself.

    A state must be pure: the same events give the same commands, whatever the time of day.
    """

    label = Attribute("What people see of it: a short str.")

    def receive(event, send):  # type: ignore[no-untyped-def]
        """Return the next state, or self. `send(command)` has the worker do something.

        `event` is one of those in mu.events. The end is a mu.states.TerminalState, or an
        ErrorState. Raises mu.states.Held for a reply that is to be offered again later.
        """


class IPipeline(Interface):
    """A kind of job.

    mu.plugins.Pipeline is the base class to derive from; it has the optional members, too.
    """

    name = Attribute("What a job names it by: a str, unique.")
    description = Attribute("One sentence for people.")
    parameters = Attribute("A sequence of mu.parameters.Parameter.")

    def plan(params):  # type: ignore[no-untyped-def]
        """Return a list with one dict of JSON values for each actor: its input.

        `params` has the pipeline's parameters and `workers`, the number that was asked for; the
        length of the list is the number of actors. Runs once per job, in a thread: it may do
        I/O; once more, if the coordinator is killed before the plan is on disk. Raises ValueError
        with a sentence for people where it cannot.
        """

    def begin(worker):  # type: ignore[no-untyped-def]
        """Return the first state of an attempt at an actor; `worker` is a mu.states.Context.

        Must be pure: after a restart it is called again for attempts that go on.
        """

    def finish(job, outcomes):  # type: ignore[no-untyped-def]
        """Return the job's result, a JSON value. Runs in a thread when all actors are done.

        `job` is a mu.states.JobFacts, `outcomes` has for each actor its mu.events.Finish, those
        that failed included. May run again after a crash of the coordinator, so it must be
        idempotent.
        """


class IEngine(Interface):
    """A way to start workers. mu.plugins.Engine is the base class to derive from."""

    name = Attribute("What a job names it by: a str, unique.")

    def launch(invocation):  # type: ignore[no-untyped-def]
        """Start one worker; return a Deferred of what became of it, which never fails.

        `invocation` and the answers (Accepted, Throttled, Unreached, Refused, Unknown) are
        those of mu.invocations.
        """

    def cancel(job_id):  # type: ignore[no-untyped-def]
        """Drop what is queued for a job, as far as the engine can; return a Deferred of None."""
