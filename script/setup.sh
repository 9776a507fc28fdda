# Sourced by script/train and script/test: `setup` makes .venv, or finds in milliseconds that it is up to date.
#
# .venv/base.stamp records where, with which Python and from which pins .venv was made; .venv/dev.stamp records the pins
# of the tools that script/test adds. A stamp is written last, so that an interrupted step is repeated.
# All messages go to standard error. Exit 2: this machine lacks something; the message says what.

root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv
python=$venv/bin/python
cd -- "$root" # data/ and output/ are relative to it

say() { printf '%s\n' "$*" >&2; }
stop() { say "$@" && exit 2; }

# `setup` installs what training needs, `setup dev` also the tools of script/test.
setup() {
    is_current "$@" && return
    trap 'say "Interrupted; the next start sets up .venv again."; exit 130' INT
    lock
    install_what_is_missing "$@"
    unlock
    trap - INT
}

is_current() {
    [ "$(stamp_of base)" = "$(base_stamp)" ] || return 1
    [ "${1-}" != dev ] || [ "$(stamp_of dev)" = "$(dev_stamp)" ]
}

# Checks again, because another script may have installed it while this one waited for the lock.
install_what_is_missing() {
    if [ "$(stamp_of base)" != "$(base_stamp)" ]; then
        # Changed pins are installed over the old ones. After a move, with another Python or after an interrupted setup
        # .venv is made again.
        case $(stamp_of base) in "$(here)"*) ;; *) make_venv ;; esac
        rm -f "$venv/base.stamp"
        install_base
        base_stamp >"$venv/base.stamp"
    fi
    if [ "${1-}" = dev ] && [ "$(stamp_of dev)" != "$(dev_stamp)" ]; then
        rm -f "$venv/dev.stamp"
        say "Installing the tools that check and test ..."
        # Forced, because pip regards a package that an interrupted install left half-unpacked as complete.
        pip_install --force-reinstall -r requirements/dev.txt
        dev_stamp >"$venv/dev.stamp"
    fi
}

make_venv() {
    find_python
    say "Making .venv with Python $found_version ..."
    "$found_python" -m venv --clear "$venv" || stop "Could not make $venv; the reason is above."
}

install_base() {
    if has_nvidia_driver; then
        say "Installing TensorFlow with its CUDA libraries; the first time it downloads about 3.5 GB ..."
        pip_install -r requirements/base.txt -r requirements/gpu.txt
    else
        say "Installing TensorFlow for the CPU; the first time it downloads about 700 MB ..."
        pip_install -r requirements/base.txt
    fi
    pip_install --no-build-isolation --editable .
}

# The pins name every package, so pip resolves nothing.
pip_install() {
    PIP_USER=0 "$python" -m pip --disable-pip-version-check install --no-deps --progress-bar off "$@" 2>&1 |
        show_what_matters ||
        stop "pip could not install what requirements/ pins; its reason is above." \
            "It needs a network, or a mirror (PIP_INDEX_URL). Then run the same command again."
}

# Of pip's output: large downloads, lost connections, and everything from its first error on.
show_what_matters() {
    local line failed=""
    while IFS= read -r line; do
        case $line in
            ERROR:* | error:* | Traceback*) failed=yes ;;
            *Downloading*\([1-9][0-9][0-9].*MB\) | *"Downloading "*GB\)) say "$line" ;;
            "Installing collected packages"*tensorflow*) say "  Unpacking, which takes up to a minute ..." ;;
            "WARNING: Retrying"*) say "$line" ;;
        esac
        [ -z "$failed" ] || say "$line"
    done
}

# Sets found_python and found_version to the first suitable Python in PATH.
find_python() {
    local name version executable seen=""
    for name in python3.13 python3.12 python3.11 python3; do
        # A name may be a shim without a Python behind it, or be in a virtual environment: run it.
        read -r version executable < <("$name" -c "$about_python" 2>/dev/null) || continue
        case $version in
            3.11 | 3.12 | 3.13) found_python=$executable found_version=$version && return ;;
            *-venv) seen="$seen $name has no venv module (Debian, Ubuntu: apt-get install python${version%-venv}-venv)." ;;
            *) seen="$seen $name is Python $version." ;;
        esac
    done
    stop "Model Trainer needs Python 3.11, 3.12 or 3.13 in PATH.${seen:- There is no python3.}" \
        "Install one, for example: apt-get install python3 python3-venv, or: brew install python@3.13"
}
about_python='
import sys
version = "%d.%d" % sys.version_info[:2]
try:
    import ensurepip, venv
except ImportError:
    version += "-venv"
print(version, getattr(sys, "_base_executable", sys.executable))
'

# The file first, because nvidia-smi takes seconds while the driver sleeps; WSL has only nvidia-smi.
has_nvidia_driver() { [ -e /proc/driver/nvidia/version ] || nvidia-smi >/dev/null 2>&1; }

stamp_of() { cat "$venv/$1.stamp" 2>/dev/null || true; }
dev_stamp() { cksum <requirements/dev.txt; }
base_stamp() {
    here
    if has_nvidia_driver; then
        printf 'gpu %s\n' "$(cat requirements/base.txt requirements/gpu.txt pyproject.toml | cksum)"
    else
        printf 'cpu %s\n' "$(cat requirements/base.txt pyproject.toml | cksum)"
    fi
}
# A virtual environment works only where it was made, and with the Python that made it.
here() {
    printf '%s, Python %s, ' "$root" \
        "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)"
}

# Only one script at a time changes .venv; without flock (macOS) this is not enforced.
lock() {
    command -v flock >/dev/null || return 0
    exec 9<>script/setup.sh # held while it is open; nothing is written
    flock -n 9 2>/dev/null && return
    say "Another script/train or script/test is setting up .venv; waiting for it ..."
    flock 9 || true
}
unlock() { exec 9>&-; }
