"""The cluster file: every mistake with its line, and Ray's launcher as it really fails."""

import shutil
from pathlib import Path

import pytest

from rayrnn.cluster.cluster_file import read_cluster_file
from rayrnn.errors import ClusterError
from tests.test_cli import run_rayrnn

SHIPPED = Path(__file__).parent.parent / "cluster.yaml"


def test_the_shipped_file_is_valid() -> None:
    file = read_cluster_file(SHIPPED)
    assert file.provider == "local"
    assert len(file.hosts) == 1 + file.max_workers


def test_an_own_key_of_local_clusters_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(SHIPPED.read_text() + "min_workers: 1\nmax_workers: 1\n")
    assert read_cluster_file(path).max_workers == 1


@pytest.mark.parametrize(
    ("before", "after", "line", "message"),
    [
        ("ssh_user:", "ssh_usr:", "ssh_usr:", 'key "auth.ssh_usr" is unknown; did you mean "ssh_user"?'),
        ("type: local", "type: locl", "type: locl", 'provider.type "locl" is unknown; did you mean "local"?'),
        ("head_ip:", "top_ip:", "provider:", 'needs key "provider.head_ip"'),
        ("ssh_user: ", "ssh_user: -oProxyCommand=true #", "ssh_user:", "begins with - or has a blank"),
        ("head_ip: ", "head_ip: -oProxyCommand=true #", "head_ip:", "begins with - or has a blank"),
        (
            "worker_ips: [",
            "worker_ips: [-F/dev/null, ",
            "worker_ips:",
            "\"provider.worker_ips.0\": '-F/dev/null' is no",
        ),
        ("type: local", "kind: local", "provider:", 'key "provider.type" is missing'),
        ("cluster_name: rayrnn", "cluster_name: 3", "cluster_name:", "3 is not of type 'string'"),
        *(
            ("cluster_name: rayrnn", f"cluster_name: {name!r}", "cluster_name:", f"{name!r} is no plain name")
            for name in (
                "../..",
                "..",
                "/tmp/x",
                "a/b",
                "-rf",
                "",
                "a b",
                "a;b",
                ".hidden",
                "\u00e9t\u00e9",
                "a" * 65,
            )
        ),
        ("provider:", "0: x\nprovider:", "", "key 0 is no text: put quotes around it"),
        ("type: local", "null: local", "provider:", 'key None in "provider" is no text'),
        ("auth:", "available_node_types: {2024-01-31: {}}\nauth:", "available", "key 2024-01-31 in "),
        ("provider:", "max_workers: -1\nprovider:", "max_workers:", "-1 is less than the minimum"),
        ("worker_ips: [", "worker_ips: {", "worker_ips:", "not valid YAML"),
        ("provider:", "head_node: {a: 1}\nprovider:", "head_node:", '"head_node" is unknown'),
        ("provider:", "available_node_types: {}\nprovider:", "available_", "does not go with provider.type local"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, before: str, after: str, line: str, message: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(SHIPPED.read_text().replace(before, after, 1))
    number = 1 + next(i for i, text in enumerate(path.read_text().splitlines()) if text.strip().startswith(line))
    with pytest.raises(ClusterError) as caught:
        read_cluster_file(path)
    assert f"{path}:{number}: " in str(caught.value)
    assert message in str(caught.value)


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(SHIPPED.read_text().replace("ssh_user", "ssh_usr").replace("private_key", "private_kye"))
    with pytest.raises(ClusterError) as caught:
        read_cluster_file(path)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("text", ["", "- a list", "text"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(ClusterError, match="mapping"):
        read_cluster_file(path)


def test_a_file_that_is_not_there_is_a_cluster_error(tmp_path: Path) -> None:
    ended = run_rayrnn("up", "nowhere.yaml", home=tmp_path)
    assert ended.returncode == 4
    assert "no cluster file nowhere.yaml" in ended.stderr


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with all that the shipped file names, on a machine with the launcher's tools."""
    if not (shutil.which("ssh") and shutil.which("rsync")):
        pytest.skip("Ray's launcher needs ssh and rsync")
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519").write_text("no real key")
    (tmp_path / ".ssh" / "id_ed25519").chmod(0o600)
    return tmp_path


def test_what_the_launcher_would_miss_is_named_before(tmp_path: Path) -> None:
    ended = run_rayrnn("up", str(SHIPPED), "--dry-run", home=tmp_path, PATH="")
    assert ended.returncode == 4
    assert "ssh is not installed" in ended.stderr
    assert "rsync is not installed" in ended.stderr
    assert '"auth.ssh_private_key" names ~/.ssh/id_ed25519' in ended.stderr


def test_hosts_that_are_not_reached_are_named_before_anything_is_touched(home: Path) -> None:
    path = home / "cluster.yaml"
    # names under .invalid resolve nowhere
    text = SHIPPED.read_text().replace("192.0.2.10", "head.invalid").replace("192.0.2.11, 192.0.2.12", "worker.invalid")
    path.write_text(text)
    ended = run_rayrnn("up", str(path), "--yes", home=home)
    assert ended.returncode == 4
    for host in ("head.invalid", "worker.invalid"):
        assert f"{host}: {host} is not reached by `ssh -i {home}/.ssh/id_ed25519 ubuntu@{host}`" in ended.stderr
    assert "Traceback" not in ended.stderr
    files = {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()}
    assert files == {".ssh/id_ed25519", "cluster.yaml", ".local/state/rayrnn/held/rayrnn"}


@pytest.mark.parametrize("name", ["../..", "keep", "../../../keep"])
def test_down_removes_no_folder_that_a_clusters_name_leads_to(home: Path, name: str) -> None:
    for place in ("keep", ".local/state/rayrnn/keep", ".local/state/rayrnn/clusters/other"):
        (home / place).mkdir(parents=True)
    absolute = str(home / name) if name == "keep" else name
    path = home / "cluster.yaml"
    path.write_text(SHIPPED.read_text().replace("cluster_name: rayrnn", f"cluster_name: {absolute}"))
    ended = run_rayrnn("down", str(path), "--yes", home=home)
    assert ended.returncode == 4
    assert "is no plain name" in ended.stderr
    assert {"keep", ".local/state/rayrnn/keep", ".local/state/rayrnn/clusters/other"} <= {
        place.relative_to(home).as_posix() for place in home.rglob("*")
    }


def test_down_names_the_hosts_that_are_not_reached(home: Path) -> None:
    path = home / "cluster.yaml"
    path.write_text(SHIPPED.read_text().replace("192.0.2.10", "head.invalid").replace("192.0.2.11, 192.0.2.12", ""))
    ended = run_rayrnn("down", str(path), "--yes", home=home)
    assert ended.returncode == 4
    assert "head.invalid is not reached" in ended.stderr
    assert f"`rayrnn down {path}` again" in ended.stderr
