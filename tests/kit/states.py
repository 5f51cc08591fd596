"""State classes and hellos that several tests use."""

import zlib

from mu.events import Answered, Elapsed, Entered, Lost
from mu.messages import Hello
from mu.states import CommandListState, MachineState, OnePassState
from mu.wire import frame


class Leave(OnePassState):
    expect = "OK:ECHO(2)"
    command = "quit:"


class Two(CommandListState):
    commandlist = (("OK:HELLO", "echo:1"), ("OK:ECHO(1)", "echo:2"))
    nextState = Leave


class Late(MachineState):
    """Sends a command when its worker has been silent for a minute, and goes on."""

    timeout = None

    def receive(self, event, send):
        match event:
            case Entered():
                self.worker.set_timer("minute", 60)
            case Elapsed():
                send("echo:late")
            case Answered(text="OK:ECHO(now)"):
                send("echo:soon")
            case Lost():
                return super().receive(event, send)
        return self


def crc(*commands):
    return zlib.crc32(b"".join(map(frame, commands)))


def hello(session="aa", launch="", received=(), sent=0):
    return Hello(session, launch, len(received), crc(*received), sent)
