"""The system calls that a box may not make, as the kernel takes such rules: a program for its packet filter.

The rules are the image's own profile, so that boxes of both kinds are kept from the same. bubblewrap takes no names of
calls but a finished program, so it is made here, for the two kinds of processors that there are browsers for.
"""

from __future__ import annotations

import json
import platform
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from greenroom.actors.errors import SandboxUnavailable

LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
AND: Final = 0x54  # BPF_ALU | BPF_AND | BPF_K
RETURN: Final = 0x06  # BPF_RET | BPF_K

NUMBER: Final = 0
ARCHITECTURE: Final = 4
ARGUMENTS: Final = 16
"""Offsets into what the program looks at (`struct seccomp_data`)."""

ALLOW: Final = 0x7FFF0000
REFUSE: Final = 0x00050000  # with an errno in the low bits
NOT_PERMITTED: Final = 1
X32: Final = 0x40000000
"""From here on, numbers are of calls by another convention, which could be used to go round all that is refused."""


class Processor(NamedTuple):
    """How a kind of processor is known to the kernel, and its column below."""

    audit: int
    column: int


PROCESSORS: Final[Mapping[str, Processor]] = {
    "x86_64": Processor(0xC000003E, 1),
    "aarch64": Processor(0xC00000B7, 2),
}

# Name, number on x86_64, number on aarch64; these numbers never change.
CALLS: Final = """\
_sysctl 156 -
acct 163 89
add_key 248 217
bpf 321 280
clock_adjtime 305 266
clock_settime 227 112
create_module 174 -
delete_module 176 106
fanotify_init 300 262
finit_module 313 273
fsconfig 431 431
fsmount 432 432
fsopen 430 430
fspick 433 433
get_kernel_syms 177 -
get_mempolicy 239 236
init_module 175 105
io_uring_enter 426 426
io_uring_register 427 427
io_uring_setup 425 425
ioperm 173 -
iopl 172 -
kcmp 312 272
kexec_file_load 320 294
kexec_load 246 104
keyctl 250 219
listmount 458 458
lookup_dcookie 212 18
lsm_set_self_attr 460 460
mbind 237 235
memfd_secret 447 447
migrate_pages 256 238
mount 165 40
mount_setattr 442 442
move_mount 429 429
move_pages 279 239
name_to_handle_at 303 264
nfsservctl 180 42
open_by_handle_at 304 265
open_tree 428 428
perf_event_open 298 241
pidfd_getfd 438 438
pivot_root 155 41
process_madvise 440 440
process_vm_readv 310 270
process_vm_writev 311 271
ptrace 101 117
query_module 178 -
quotactl 179 60
quotactl_fd 443 443
reboot 169 142
request_key 249 218
set_mempolicy 238 237
set_mempolicy_home_node 450 450
setns 308 268
settimeofday 164 170
socket 41 198
socketpair 53 199
statmount 457 457
swapoff 168 225
swapon 167 224
sysfs 139 -
syslog 103 116
umount2 166 39
uselib 134 -
userfaultfd 323 282
ustat 136 -
vhangup 153 58
"""


def seccomp_program(profile: Path, machine: str | None = None) -> bytes:
    """The program of a profile in the format of container engines: default allow, calls to refuse, conditions on
    arguments. Reads the file.

    Raises `SandboxUnavailable` for a processor that is not known.
    """
    processor = PROCESSORS.get(machine or platform.machine())
    if processor is None:
        raise SandboxUnavailable(
            f"isolated boxes on this machine need x86_64 or aarch64, and it is {machine or platform.machine()}"
        )
    numbers = {
        row[0]: int(row[processor.column])
        for row in map(str.split, CALLS.splitlines())
        if row[processor.column] != "-"
    }
    instructions = [*_opening(processor)]
    for rule in json.loads(profile.read_text())["syscalls"]:
        for name in rule["names"]:
            if name in numbers:  # of the others, this kind of processor has none
                instructions += _refusal(numbers[name], rule["errnoRet"], rule.get("args", ()))
    return b"".join([*instructions, _instruction(RETURN, ALLOW)])


def _opening(processor: Processor) -> Iterator[bytes]:
    yield _instruction(LOAD, ARCHITECTURE)
    yield _instruction(EQUAL, processor.audit, then=1)
    yield _instruction(RETURN, REFUSE | NOT_PERMITTED)
    yield _instruction(LOAD, NUMBER)
    yield _instruction(AT_LEAST, X32, otherwise=1)
    yield _instruction(RETURN, REFUSE | NOT_PERMITTED)


def _refusal(number: int, errno: int, conditions: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """The number is loaded before and after."""
    end = [_instruction(RETURN, REFUSE | errno)]
    if conditions:
        end.append(_instruction(LOAD, NUMBER))
    for left, condition in enumerate(reversed(conditions)):
        end[:0] = _condition(condition, over=3 * left + 1)
    return [_instruction(EQUAL, number, otherwise=len(end)), *end]


def _condition(condition: Mapping[str, Any], over: int) -> list[bytes]:
    """Go on when an argument is as given, else skip what refuses.

    The arguments in question are ints: the kernel itself takes no notice of what is above their 32 bits, and comparing
    that as well would let calls through that have something there.
    """
    masked = condition["op"] == "SCMP_CMP_MASKED_EQ"
    mask, value = (condition["value"], condition["valueTwo"]) if masked else (0xFFFFFFFF, condition["value"])
    return [
        _instruction(LOAD, ARGUMENTS + 8 * condition["index"]),
        _instruction(AND, mask & 0xFFFFFFFF),
        _instruction(EQUAL, value, otherwise=over),
    ]


def _instruction(code: int, value: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    """`then`, `otherwise`: how many instructions a comparison skips."""
    return struct.pack("=HBBI", code, then, otherwise, value)
