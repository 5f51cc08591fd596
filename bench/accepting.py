"""A Lambda endpoint that accepts each invocation at once and runs nothing: `accepting.py FOLDER`.

HTTPS on the loopback with FOLDER/ca.pem as its CA; prints its port.
"""

import asyncio
import re
import ssl
import sys
from pathlib import Path

from mu.net.certificates import Authority

LENGTH = re.compile(rb"(?i)content-length: *(\d+)")
ACCEPTED = b"HTTP/1.1 202 Accepted\r\nx-amzn-RequestId: 1\r\nContent-Length: 0\r\n\r\n"


class Accepting(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            form = LENGTH.search(self.buffer, 0, end)
            whole = end + 4 + (int(form[1]) if form else 0)
            if len(self.buffer) < whole:
                if b"100-continue" in self.buffer[:end]:
                    self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            self.buffer = self.buffer[whole:]
            self.transport.write(ACCEPTED)


async def main(folder: Path) -> None:
    authority = Authority.new()
    server = authority.mint_server("localhost")
    (folder / "ca.pem").write_text(authority.pem)
    (folder / "server.pem").write_text(server.certificate + server.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem")
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(Accepting, "127.0.0.1", 0, ssl=context, backlog=1024)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
