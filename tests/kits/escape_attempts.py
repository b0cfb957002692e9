"""Programs that `escape_kit` runs in boxes, in the box's own Python; each prints what it found as JSON."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager

BECOME_ROOT = """
import ctypes, json, os
became = []
for attempt in (
    lambda: os.setuid(0),
    lambda: os.setgid(0),
    lambda: os.setgroups([0]),
    lambda: os.chown("/workspace", 0, 0),
    lambda: os.mknod("/workspace/disk", 0o60666, os.makedev(254, 0)),
    lambda: os.chroot("/workspace"),
):
    try:
        attempt()
        became.append(attempt.__code__.co_names)
    except OSError:
        pass
PR_SET_NO_NEW_PRIVS = 38
if ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0:
    became.append("privileges by programs")
print(json.dumps(became))
"""

SYSTEM_CALLS = """
import ctypes, errno, json, platform
libc = ctypes.CDLL(None, use_errno=True)
column = 0 if platform.machine() == "x86_64" else 1
found = {}
for name, numbers in CALLS.items():
    ctypes.set_errno(0)
    arguments = [ctypes.c_long(0)] * 6
    got = libc.syscall(ctypes.c_long(numbers[column]), *arguments)
    found[name] = "done" if got >= 0 else errno.errorcode[ctypes.get_errno()]
print(json.dumps(found))
"""

OTHER_SPELLINGS = """
import ctypes, errno, json, platform
libc = ctypes.CDLL(None, use_errno=True)
number = 41 if platform.machine() == "x86_64" else 198
found = {}
for name, family in (("packet", 17), ("vsock", 40)):
    for high in (0, 1 << 32):
        ctypes.set_errno(0)
        got = libc.syscall(ctypes.c_long(number), ctypes.c_long(high | family), ctypes.c_long(3), ctypes.c_long(0))
        answer = "done" if got >= 0 else errno.errorcode[ctypes.get_errno()]
        if found.setdefault(name, answer) != answer:
            found[name] += ", spelt otherwise: " + answer
print(json.dumps(found))
"""
"""Families of sockets, also with something in the half of the argument that the kernel takes no notice of."""

REACH = """
import json, socket
reached = []
for address in ("127.0.0.1", "::1", "169.254.169.254", "10.0.0.1", "172.17.0.1", "1.1.1.1"):
    for port in (PORT, 80, 53):
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as s:
            s.settimeout(1)
            try:
                s.connect((address, port))
                reached.append([address, port])
            except OSError:
                pass
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    try:
        s.sendto(b"x", ("1.1.1.1", 53))
        reached.append("by UDP")
    except OSError:
        pass
with socket.socket(socket.AF_UNIX) as s:
    try:
        s.connect("\\0NAME")
        reached.append("a socket of the host's with no file")
    except OSError:
        pass
try:
    reached.append(socket.getaddrinfo("example.com", 80)[0][4])
except OSError:
    pass
try:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    reached.append("a raw socket")
except OSError:
    pass
print(json.dumps(reached))
"""

THROUGH = """
import json, socket, urllib.parse
def ask(request):
    with socket.create_connection(("127.0.0.1", 3128), 30) as s:
        s.sendall(request.encode())
        return int((s.recv(4096).split() + [b"0", b"999"])[1])
found = {}
for target in TARGETS:
    place = urllib.parse.urlsplit(target).netloc
    found[target] = ask(f"GET {target} HTTP/1.1\\r\\nHost: {place}\\r\\nConnection: close\\r\\n\\r\\n")
    place += "" if place.rpartition(":")[2].isdecimal() else ":443"
    found["tunnel " + place] = ask(f"CONNECT {place} HTTP/1.1\\r\\nHost: {place}\\r\\n\\r\\n")
print(json.dumps(found))
"""

FILL = """
import json, os
filled = {}
piece = b"x" * (1 << 20)
for folder in ("/workspace", "/tmp", "/dev/shm", "/box", "/dev", "/run", "/var/tmp", "/opt", "/"):
    try:
        with open(folder + "/fill", "wb", buffering=0) as file:
            filled[folder] = 0
            for _ in range(400):
                filled[folder] += file.write(piece)
    except OSError:
        pass
print(json.dumps({"filled": filled}))
"""

FORKS = """
import errno, json, os, signal, time
children, error = [], None
for _ in range(3000):
    try:
        child = os.fork()
    except OSError as refused:
        error = errno.errorcode[refused.errno]
        break
    if child == 0:
        time.sleep(60)
        os._exit(0)
    children.append(child)
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
print(json.dumps({"error": error, "forked": len(children)}))
"""

MANY_EATERS = """
import os, time
def eat():
    kept = bytearray(128 << 20)
    for i in range(0, len(kept), 4096): kept[i] = 1
    time.sleep(2)
    os._exit(0)
children = []
for _ in range(8):
    child = os.fork()
    if child == 0: eat()
    children.append(child)
print(sum(os.waitpid(child, 0)[1] == 0 for child in children), "had 128 MiB")
"""

BROWSER_PROCESSES = """
import glob, json
renderers, unsandboxed = [], False
for folder in glob.glob("/proc/[0-9]*"):
    try:
        words = open(folder + "/cmdline").read().replace("\\0", " ").split()
        status = dict(line.split(":\\t", 1) for line in open(folder + "/status").read().splitlines() if ":\\t" in line)
    except OSError:
        continue
    unsandboxed |= "--no-sandbox" in words
    if "--type=renderer" in words:
        renderers.append(status)
print(json.dumps({
    "unsandboxed": unsandboxed,
    "renderers_filtered": bool(renderers) and all(int(status["Seccomp_filters"]) >= 2 for status in renderers),
}))
"""
"""The browser adds a filter of its own to what the box has."""


@contextmanager
def abstract_socket() -> Iterator[str]:
    """A UNIX socket that listens on the host and has no file; its name."""
    name = f"greenroom-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0{name}")
        listening.listen()
        yield name
