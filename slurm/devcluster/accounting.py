"""Real accounting, so that `sacct` answers: a private slurmdbd and MariaDB, from Debian packages that are unpacked and never installed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from pathlib import Path

from cpt.core.artifacts import write_text
from cpt.core.errors import CptError, Problem, UserError
from slurm import process
from slurm.devcluster import daemons
from slurm.devcluster.layout import ClusterFiles, ClusterLayout
from slurm.devcluster.rights import SEARCH
from slurm.devcluster.settings import CLUSTER, slurmdbd_conf

_DATABASE = "mariadbd"
_ACCOUNTING = "slurmdbd"
_PACKAGES = ("slurmdbd", "slurm-wlm-mysql-plugin", "mariadb-server-core")


def packages() -> Path:
    """The folder of the unpacked packages, fetched once (about 10 MB) for each version of SLURM. Raises `UserError` when they cannot be had."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cpt" / "accounting"
    folder = home / _slurm_version()
    if not folder.is_dir():
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home, prefix=".fetch-") as aside:
            _unpack(_download(Path(aside)), Path(aside) / "root")
            with contextlib.suppress(FileExistsError, OSError):  # another start was quicker
                (Path(aside) / "root").rename(folder)
    return folder


def start(layout: ClusterLayout, files: ClusterFiles, folder: Path) -> None:
    """After munge and before the controller, which asks for its own name in the books as soon as it comes up."""
    libraries = _libraries(folder)
    _start_database(files, folder, libraries)
    write_text(files.slurmdbd_conf, slurmdbd_conf(layout, files, libraries / "slurm-wlm"))
    files.slurmdbd_conf.chmod(0o600)
    extra = {"LD_LIBRARY_PATH": str(libraries), "MYSQL_UNIX_PORT": str(files.database_socket)}
    daemons.spawn(files, _ACCOUNTING, daemons.on_login(layout, f"{folder}/usr/sbin/slurmdbd", "-D"), extra)
    process.wait_until(lambda: _registered(files), what=f"slurmdbd, see {files.log(_ACCOUNTING)}", timeout=30)


def stop(files: ClusterFiles) -> None:
    """The books are thrown away with the cluster, so nobody need close them."""
    process.end(files.pid(_ACCOUNTING), signal.SIGKILL)
    process.end(files.pid(_DATABASE), signal.SIGKILL)


def _slurm_version() -> str:
    done = subprocess.run(["slurmctld", "-V"], env=os.environ | {"PATH": SEARCH}, capture_output=True, text=True, check=True)
    return done.stdout.split()[-1]


def _download(aside: Path) -> Path:
    """apt finds what the packages need and this machine lacks. If the system's lists are old or missing, it reads fresh ones into `aside`."""
    archives = aside / "archives"
    (archives / "partial").mkdir(parents=True)
    (aside / "lists" / "partial").mkdir(parents=True)
    fresh = [f"-oDir::State::Lists={aside}/lists", f"-oDir::Cache={aside}"]
    own = [f"-oDir::Cache::Archives={archives}", "-oDebug::NoLocking=true"]
    get = ["install", "--download-only", "--reinstall", "--no-install-recommends", "--yes", *own, *_PACKAGES]
    why = _apt(*get) and (_apt("update", *fresh) or _apt(*get, *fresh))
    if why:
        what = f"no {', '.join(_PACKAGES)}"
        raise UserError(Problem(where="cpt devcluster start accounting=true", what=what, why=why, fix="leave accounting out: only sacct needs it"))
    return archives


def _apt(*arguments: str) -> str:
    """Empty when it worked, else why not."""
    try:
        done = subprocess.run(["apt-get", "-qq", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"apt-get: {error}"
    return "" if done.returncode == 0 else f"apt-get: {(done.stderr.strip().splitlines() or ['failed'])[-1]}"


def _unpack(archives: Path, root: Path) -> None:
    for archive in sorted(archives.glob("*.deb")):
        done = subprocess.run(["dpkg-deb", "--extract", str(archive), str(root)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise CptError(f"{archive.name}: {done.stderr.strip()}")


def _libraries(folder: Path) -> Path:
    """Debian's folder for libraries is named after the processor."""
    return next(folder.glob("usr/lib/*/slurm-wlm")).parent


def _start_database(files: ClusterFiles, folder: Path, libraries: Path) -> None:
    """MariaDB without a network and without users: its socket lies in a folder that only root can enter."""
    share = folder / "usr/share/mysql"
    files.database.mkdir(mode=0o700)
    command = [f"{folder}/usr/sbin/mariadbd", "--no-defaults", f"--datadir={files.database}", f"--socket={files.database_socket}", "--skip-networking"]
    command += ["--user=root", f"--lc-messages-dir={share}", f"--character-sets-dir={share}/charsets", f"--pid-file={files.root}/run/mariadbd.pid"]
    command += ["--performance-schema=off", "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M", "--innodb-flush-log-at-trx-commit=0"]
    command += ["--innodb-lock-wait-timeout=900"]  # slurmdbd asks for at least this
    # The bootstrap reads a statement a line, and its own script expects this variable.
    tables = "create database mysql;\nuse mysql;\nset @auth_root_socket=NULL;\n" + (share / "mysql_system_tables.sql").read_text()
    extra = {"LD_LIBRARY_PATH": str(libraries)}
    done = subprocess.run([*command, "--bootstrap"], input=tables, env=os.environ | extra, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise CptError(f"MariaDB could not make its tables: {done.stderr.strip()[-500:]}")
    daemons.spawn(files, _DATABASE, [*command, "--skip-grant-tables"], extra)
    process.wait_until(files.database_socket.exists, what=f"mariadbd, see {files.root}/log/{_DATABASE}.out", timeout=30)


def _registered(files: ClusterFiles) -> bool:
    try:
        daemons.client(files, "sacctmgr", "--immediate", "add", "cluster", CLUSTER)
    except CptError:  # slurmdbd does not answer yet
        return False
    return True
