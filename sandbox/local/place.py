"""Finding out what boxes on this machine are made of, and what is missing for them; in words that say what to do."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from greenroom.actors.errors import SandboxUnavailable
from greenroom.sandbox.browsers import find_browser
from greenroom.sandbox.local.compiled import compiled_modules
from greenroom.sandbox.local.mounts import Place
from greenroom.sandbox.local.seccomp import seccomp_program
from greenroom.sandbox.places import state_folder
from greenroom.sandbox.settings import SandboxSettings
from greenroom.sandbox.trust import spki_hashes

MODULES: Final = ("aiohttp", "playwright", "jupyter_client", "ipykernel")
"""What the tool server imports."""

OLDEST: Final = (0, 7)
"""The first bubblewrap that bounds what is kept in memory (`--size`)."""

TOO_WIDE: Final = frozenset(map(Path, ("/", "/usr", "/home", "/root", "/etc", "/var", "/tmp")))
"""Never shown to a box as a whole because some module lies in it."""

OF_AN_ENVIRONMENT: Final = ("bin", "lib", "lib64", "pyvenv.cfg")
"""What an interpreter needs of its folder."""

SYSCTLS: Final = Path("/proc/sys")

NAMESPACES_OFF: Final = (
    ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or AppArmor profiles that give bwrap `userns`",
    ),
)
"""Settings that keep programs from having user namespaces, the value that does, and what to do."""

TAIL: Final = (
    "; boxes of a container engine need nothing of this (GREENROOM_SANDBOX=docker), and "
    "unsafe_local_browser=True (GREENROOM_SANDBOX_UNSAFE=1) runs the browser with no isolation at all"
)


def find_place(settings: SandboxSettings) -> Place:
    """Look at the interpreter, the environment, the browser and bubblewrap.

    Raises `SandboxUnavailable` for what is missing.
    """
    browser = find_browser(settings.browser)
    imports = _imports()
    image = image_package()
    if holds_private(browser.folder):
        raise SandboxUnavailable(
            f"the browser {browser.program} lies in {browser.folder}, where other things of yours are that boxes would "
            f"see: move it into a folder of its own{TAIL}"
        )
    trust = spki_hashes(settings.trusted_certificates) if settings.trusted_certificates else ()
    environment = [path for path in _interpreter() if not _is_of_the_system(path)]
    folders = (*(part for path in environment for part in without_private(path)), browser.folder)
    return Place(
        bubblewrap=_bubblewrap(),
        python=sys.executable,
        folders=tuple(path for path in folders if not _is_of_the_system(path)),
        imports=imports,
        image=image,
        browser=browser.program,
        trust=",".join(trust),
        seccomp=seccomp_program(image / "seccomp.json"),
        compiled=compiled_modules(image),
    )


def find_bare_place(settings: SandboxSettings) -> Place:
    """The same for boxes without isolation, which see the machine as it is."""
    trust = spki_hashes(settings.trusted_certificates) if settings.trusted_certificates else ()
    _imports()
    return Place(
        bubblewrap="",
        python=sys.executable,
        folders=(),
        imports=(),
        image=image_package(),
        browser=find_browser(settings.browser).program,
        trust=",".join(trust),
    )


def image_package() -> Path:
    """Where the tool server's modules are."""
    import greenroom.sandbox

    return Path(greenroom.sandbox.__file__).resolve().parent / "image"


def why_no_namespaces(said: str, sysctls: Path = SYSCTLS) -> str:
    """What keeps bubblewrap from making a box that said this, and what to do."""
    for name, off, what_to_do in NAMESPACES_OFF:
        file = sysctls / name
        if file.exists() and file.read_text().strip() == off:
            setting = name.replace("/", ".")
            return f"user namespaces are off on this machine ({setting} = {off}): {what_to_do}{TAIL}"
    if "permi" in said.lower() or "not permitted" in said.lower():
        return (
            f"bubblewrap may not make namespaces here ({said}): inside a container its engine's seccomp or AppArmor "
            f"profile forbids it (--security-opt seccomp=unconfined,apparmor=unconfined lets it){TAIL}"
        )
    return f"bubblewrap cannot make a box here: {said or 'it said nothing'}{TAIL}"


def _bubblewrap() -> str:
    if sys.platform != "linux":
        raise SandboxUnavailable(f"boxes of this machine's own need Linux, and this is {sys.platform}{TAIL}")
    found = shutil.which("bwrap")
    if found is None:
        raise SandboxUnavailable(
            f"bubblewrap is missing: `apt-get install bubblewrap` (or your system's){TAIL}"
        )
    if shutil.which("setpriv") is None or shutil.which("prlimit") is None:
        raise SandboxUnavailable(f"setpriv or prlimit is missing: `apt-get install util-linux`{TAIL}")
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    version = tuple(int(part) for part in re.findall(r"\d+", said)[:2])
    if version < OLDEST:
        raise SandboxUnavailable(
            f"{said.strip()} cannot bound what a box keeps in memory; 0.7 or newer is needed{TAIL}"
        )
    return found


def _interpreter() -> list[Path]:
    """The folders of the interpreter and of its environment, by each name they go by."""
    named = [Path(sys.prefix), Path(sys.base_prefix), *_hops(Path(sys.executable))]
    return list(dict.fromkeys([*named, *(path.resolve() for path in named)]))


def _hops(program: Path) -> list[Path]:
    """The folders above `bin` of a program and of all that its links lead by."""
    found = []
    while True:
        found.append(program.parent.parent)
        if not program.is_symlink():
            return found
        program = program.parent / program.readlink()


def _imports() -> tuple[Path, ...]:
    """Where modules of the tool server are that are not in the environment; they are looked for, not imported."""
    shown = [path for path in _interpreter() if path.name]
    found = []
    for name in MODULES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise SandboxUnavailable(
                f'the module {name} is missing, which boxes on this machine need: `pip install "greenroom[sandbox]"`'
            )
        folder = Path(spec.origin).parent.parent
        if not any(folder.is_relative_to(path) for path in [*shown, Path("/usr")]):
            found.append(folder)
    return tuple(path for path in dict.fromkeys(found) if path not in TOO_WIDE and not holds_private(path))


def holds_private(folder: Path) -> bool:
    """Whether what is its user's own lies in there. A link to an interpreter may lie in `~/bin` or `~/.local/bin`, and
    the folder above is then the home, or where keyrings and records of sandboxes are."""
    home = Path.home()
    private = (home, home / ".local", state_folder())
    return any(path.resolve().is_relative_to(folder.resolve()) for path in private)


def without_private(folder: Path) -> list[Path]:
    """What of an interpreter's folder a box may see: all, unless what is its user's own lies in there."""
    if not holds_private(folder):
        return [folder]
    return [folder / name for name in OF_AN_ENVIRONMENT if (folder / name).exists()]


def _is_of_the_system(path: Path) -> bool:
    """Whether every box sees it anyway, or no box may."""
    return path in TOO_WIDE or path.is_relative_to("/usr")
