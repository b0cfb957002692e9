"""Make a virtual environment and install into it: `python3 scripts/environment.py FOLDER REQUIREMENT...`.

Everything after FOLDER goes to `uv pip install` as it is (`-e .[test]`, `--group dev`). Needs only a Python: uv comes
from PyPI into the environment. Runs before anything is checked, so it stays readable to old Pythons too, which then
get a sentence instead of a SyntaxError.
"""

import os
import subprocess
import sys

OLDEST, NEWEST = (3, 11), (3, 13)


def main(arguments):
    if len(arguments) < 2:
        sys.exit(__doc__)
    folder, requirements = arguments[0], arguments[1:]
    os.environ["UV_PYTHON_DOWNLOADS"] = "never"  # the environment has its Python already
    check_version()
    python = os.path.join(folder, "Scripts" if os.name == "nt" else "bin", "python")
    if not runs(python):
        check_venv()
        say("making {0} with Python {1}.{2}".format(folder, *sys.version_info))
        run([sys.executable, "-m", "venv", "--clear", folder])
    if not runs(python, "-m", "uv"):
        run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv"])
    say(
        "installing {0} into {1} (the first time takes a minute or two)".format(
            " ".join(requirements), folder
        )
    )
    run([python, "-m", "uv", "pip", "install", "--quiet", "--python", python] + requirements)


def check_version():
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return
    sys.exit(
        "{0} is Python {1}.{2}, and Greenroom runs on {3}.{4} to {5}.{6}. Install one of these and name it: "
        "make PYTHON=python{5}.{6} ...".format(sys.executable, *(sys.version_info[:2] + OLDEST + NEWEST))
    )


def check_venv():
    """Debian and its kin ship Python without venv: install it where we may, else say what to install."""
    if has_venv():
        return
    package = (
        "python3-venv"
        if sys.executable == "/usr/bin/python3"
        else "python{0}.{1}-venv".format(*sys.version_info)
    )
    from_debian = sys.executable.startswith("/usr/bin/") and os.path.exists("/usr/bin/apt-get")
    if not (from_debian and os.geteuid() == 0):
        sys.exit(
            "{0} cannot make virtual environments: its modules venv and ensurepip are missing, which some systems "
            "package apart. On Debian or Ubuntu: sudo apt-get install {1}".format(sys.executable, package)
        )
    say("installing {0}, without which this Python makes no virtual environments".format(package))
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    run(["apt-get", "update", "-qq"])
    run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", package])


def has_venv():
    return runs(sys.executable, "-c", "import venv, ensurepip")


def runs(*command):
    """Whether the command exists and ends well; `--version` is asked of one that says nothing of its own."""
    command = command if "-c" in command else command + ("--version",)
    try:
        with open(os.devnull, "w") as nowhere:
            return subprocess.call(command, stdout=nowhere, stderr=nowhere) == 0
    except OSError:
        return False


def run(command):
    code = subprocess.call(command)
    if code:
        sys.exit("this failed with exit code {0}, see above: {1}".format(code, " ".join(command)))


def say(text):
    sys.stdout.write("- {0}\n".format(text))
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
