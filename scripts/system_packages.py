"""Install what tests run: engines, bubblewrap, a browser, servers of stores. `python3 scripts/system_packages.py`.

As root on Debian it installs what is missing; elsewhere it says what is missing, and the tests that need it are skipped
by name. Quick when all is there. Runs before anything is installed, so it stays readable to old Pythons.
"""

import glob
import os
import shutil
import subprocess
import sys

# A program, and the Debian packages that bring it. iptables: dockerd asks for it even where it changes nothing.
NEEDED = (
    ("dockerd", ("docker.io", "iptables")),
    ("podman", ("podman", "runc")),
    ("mmdebstrap", ("mmdebstrap",)),
    ("bwrap", ("bubblewrap",)),
    ("chromium-headless-shell", ("chromium-headless-shell", "fonts-liberation")),
    ("postgres", ("postgresql",)),
    ("redis-check-rdb", ("redis-tools",)),  # which is redis-server too, and does not start one
    ("nginx", ("nginx",)),
    ("sqlite3", ("sqlite3",)),
    ("systemd-analyze", ("systemd",)),
    ("faketime", ("faketime",)),
)
SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # not on every user's path
SERVER_FOLDERS = "/usr/lib/postgresql/*/bin"  # where Debian puts PostgreSQL's, on nobody's path
ELSEWHERE = (
    "elsewhere: Docker or Podman, bubblewrap, `playwright install chromium-headless-shell`, PostgreSQL, Redis, "
    "nginx"
)
CLUSTERS = "/etc/postgresql-common/createcluster.conf"
SERVICES = "/usr/sbin/policy-rc.d"  # Debian asks it whether a package may start its service
OVERRIDES = "/var/lib/dpkg/statoverride"


def main():
    missing = absent()
    if not missing:
        return
    names = ", ".join(program for program, _ in missing)
    packages = sorted({package for _, brings in missing for package in brings})
    how = "apt-get install {0}; {1}".format(" ".join(packages), ELSEWHERE)
    if not sys.platform.startswith("linux"):
        say("the tests of sandboxes and of servers need Linux: they are skipped here")
    elif not (shutil.which("apt-get") and os.geteuid() == 0):
        say("some tests need {0}: without, they are skipped ({1})".format(names, how))
    else:
        say("installing what tests run: {0}".format(" ".join(packages)))
        made = [path for path, writes in ((CLUSTERS, no_cluster), (SERVICES, no_service)) if writes()]
        try:
            known_groups()
            install(missing)
        finally:
            for path in made:
                os.unlink(path)
        left = ", ".join(program for program, _ in absent())
        if left:
            say("not installed: {0}; the tests that need them are skipped ({1})".format(left, ELSEWHERE))


def absent():
    folders = SYSTEM_FOLDERS + tuple(glob.glob(SERVER_FOLDERS))
    path = os.pathsep.join((os.environ.get("PATH", ""),) + folders)
    return [needed for needed in NEEDED if shutil.which(needed[0], path=path) is None]


def no_cluster():
    """See that PostgreSQL's package makes no databases of its own and starts no server: the tests have their own.

    Whether something was written that is to be removed afterwards; who has settings there keeps them.
    """
    if os.path.exists(CLUSTERS):
        return False
    if not os.path.isdir(os.path.dirname(CLUSTERS)):
        os.mkdir(os.path.dirname(CLUSTERS))
    with open(CLUSTERS, "w") as settings:
        settings.write("create_main_cluster = false\n")
    return True


def no_service():
    """See that no package starts its service: the tests have servers of their own. As `no_cluster`."""
    if os.path.exists(SERVICES):
        return False
    with open(SERVICES, "w") as policy:
        policy.write("#!/bin/sh\nexit 101\n")
    os.chmod(SERVICES, 0o755)
    return True


def known_groups():
    """Make the groups again that dpkg has files of and the system has lost: while one lacks, it installs nothing."""
    import grp  # not on Windows

    if not os.path.exists(OVERRIDES):
        return
    with open(OVERRIDES) as overrides:
        named = {line.split()[1] for line in overrides if len(line.split()) == 4}
    there = {entry.gr_name for entry in grp.getgrall()}
    for name in sorted(named - there):
        if not name.startswith("#"):
            subprocess.call(("groupadd", "--system", name))


def install(missing):
    """One after another, if they cannot be had together: not every Debian-like system has them all."""
    if not apt_get("update", "-qq"):
        say("apt-get update failed, see above; trying with what it knew before")
    options = ("install", "-y", "-qq", "--no-install-recommends")
    if apt_get(*(options + tuple(package for _, brings in missing for package in brings))):
        return
    for _, brings in missing:
        apt_get(*(options + brings))


def apt_get(*arguments):
    environ = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    return subprocess.call(("apt-get",) + arguments, env=environ, stdout=subprocess.DEVNULL) == 0


def say(text):
    sys.stdout.write("- {0}\n".format(text))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
