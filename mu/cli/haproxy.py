"""What `mu init --haproxy` writes: HAProxy's configuration, and a systemd unit for each of its processes."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from mu.home import BACKLOG, HAPROXY_PEM, WORKER_SOCKET

if TYPE_CHECKING:
    from pathlib import Path

    from mu.config import Config

CONFIG = "mu-haproxy.cfg"
UNIT = "mu-haproxy@.service"
TUNNEL_S = 3 * 3600
"""HAProxy closes connections that are silent for this long, which is longer than any function runs."""
LONGEST_MS = 24 * 86_400_000
"""HAProxy knows no longer timeout."""

_CONFIG = """\
# HAProxy's configuration: it does TLS for mu's workers, and hands them over to the daemon. Written by
# `mu init --haproxy` from mu.conf: after a change of host, port, hello_s, max_connections or max_handshakes
# in [worker] there, write it again, with --force.

global
    # Threads would wait for each other's locks in OpenSSL 3: start more processes instead.
    nbthread 1
    # Each connection must show a certificate that is valid now: no session is resumed.
    tune.ssl.cachesize 0
    log stderr format short daemon info

defaults
    mode tcp
    log global
    option tcplog
    option dontlog-normal
    # A worker waits here while the daemon restarts.
    timeout connect 5s
    retries 10
    # For the TLS handshake.
    timeout client {hello_ms}ms
    timeout server {hello_ms}ms
    # From then on, the daemon decides how long a worker may be silent; it pings all but those of the
    # original mu.
    timeout tunnel {tunnel_s}s
    timeout client-fin 10s
    timeout server-fin 10s

frontend mu-workers
    bind {bind} ssl crt {pem} ca-file {ca} verify required ssl-min-ver TLSv1.2 ciphers {ciphers} no-tls-tickets backlog {backlog}
    maxconn {maxconn}
    error-log-format "connection from %ci:%cp refused: %[ssl_fc_err_str]"
    default_backend mu-daemon

backend mu-daemon
    server mu unix@{socket} send-proxy-v2-ssl-cn
"""

_UNIT = """\
# A systemd unit for HAProxy in front of mu's daemon: a process for each number. As root:
#   cp {unit} /etc/systemd/system/ && systemctl daemon-reload
#   systemctl enable --now mu-haproxy@1 mu-haproxy@2
# Its log: journalctl -u 'mu-haproxy@*' -f

[Unit]
Description=HAProxy for mu's workers, process %i
After=network-online.target mu.service
Wants=network-online.target mu.service

[Service]
Type=notify
# The daemon's user: nobody else may connect to its socket.
User={user}
ExecStart={command}
ExecReload=/bin/kill -USR2 $MAINPID
# The daemon writes the certificate when it first starts.
Restart=always
RestartSec=2
KillMode=mixed
# Each worker needs two open files.
LimitNOFILE=524288
UMask=0077

[Install]
WantedBy=multi-user.target
"""


def configuration(config: Config) -> str:
    """Return the text of HAProxy's configuration."""
    from mu.net.certificates import TLS_1_2_CIPHERS

    worker, home = config.worker, config.home
    host = f"[{worker.host}]" if ":" in worker.host else worker.host
    return _CONFIG.format(
        bind=f"{host}:{worker.port}" + (" v4v6" if worker.host == "::" else ""),
        tunnel_s=TUNNEL_S,
        hello_ms=min(round(1000 * worker.hello_s), LONGEST_MS),
        maxconn=worker.max_connections + worker.max_handshakes,
        pem=shlex.quote(str(home / HAPROXY_PEM)),
        ca=shlex.quote(str(home / "ca.pem")),
        socket=shlex.quote(str(home / WORKER_SOCKET)),
        ciphers=TLS_1_2_CIPHERS,
        backlog=BACKLOG,
    )


def unit(path: Path, user: str, command: str) -> str:
    """Return the text of the systemd unit, which will be at `path`."""
    return _UNIT.format(unit=path, user=user, command=command)
