"""Flags and the environment variables of launchers tell a process which one of several it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_trainer.cluster.hosts import Hosts
from model_trainer.cluster.launchers import find_hosts
from model_trainer.errors import ConfigError

NOWHERE = Path("/nonexistent/resourceconfig.json")


def find(hosts: str | None = None, index: int | None = None, **environ: str) -> Hosts | None:
    return find_hosts(hosts, index, environ, resource_config=NOWHERE, timeout_seconds=0.1)


def hosts_of(hosts: str | None = None, index: int | None = None, **environ: str) -> Hosts:
    result = find(hosts, index, **environ)
    assert result is not None
    return result


def refusal(hosts: str | None = None, index: int | None = None, **environ: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        find(hosts, index, **environ)
    return caught.value


def tf_config(task: object, **cluster: object) -> str:
    return json.dumps({"cluster": cluster, "task": task})


STEP = {  # as srun sets them for the first of four tasks on two nodes
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "gpu[1-2]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_PROCID": "0",
    "SLURM_NODEID": "0",
    "SLURM_LOCALID": "0",
}
# What an sbatch script of that job sees.
SCRIPT = {
    "SLURM_JOB_ID": "4711",
    "SLURM_NTASKS": "4",
    "SLURM_JOB_NODELIST": "gpu[1-2]",
    "SLURM_TASKS_PER_NODE": "2(x2)",
    "SLURM_PROCID": "0",
    "SLURM_NODEID": "0",
    "SLURM_LOCALID": "0",
}
PORT = 15_000 + 711 * 16


# Without any launcher.


def test_a_process_without_any_setting_is_a_single_process() -> None:
    assert find() is None


# Flags.


def test_flags_give_all_addresses_and_the_own_index() -> None:
    assert hosts_of("a:1000, b:2000", 1) == Hosts(("a:1000", "b:2000"), 1, "--hosts")


def test_an_ipv6_address_is_in_brackets() -> None:
    assert hosts_of("[fd00::1]:2222,[fd00::2]:2222", 0).addresses == ("[fd00::1]:2222", "[fd00::2]:2222")


def test_one_address_is_a_single_process() -> None:
    assert find("a:2222") is None
    assert find("a:2222", 0, **STEP) is None


def test_flags_override_the_environment() -> None:
    environ = {"TF_CONFIG": tf_config({"type": "worker", "index": 1}, worker=["x:1", "y:1"])}
    assert hosts_of("a:1,b:1", 0, **environ).addresses == ("a:1", "b:1")


@pytest.mark.parametrize(
    ("hosts", "message"),
    [
        ("a:2222,b", "has no port for 'b'. Write it as b:2222."),
        ("a:2222,b:x", "port from 1 to 65535, got 'x' in 'b:x'"),
        ("a:2222,b:0", "got '0'"),
        ("a:2222,b:65536", "got '65536'"),
        ("a:2222,b:²", "got '²'"),
        ("a:2222,A:2222", "names a:2222 twice"),
        ("a:2222,fd00::1:2222", "IPv6 addresses in brackets"),
        ("a:2222,[fd00::1]", "has no port for '[fd00::1]'"),
        ("a:2222,", "got ''"),
        ("", "got ''"),
        ("http://a:2222,b:2222", "got 'http://a:2222'"),
    ],
)
def test_invalid_addresses_are_refused_with_the_flag_and_the_cure(hosts: str, message: str) -> None:
    error = refusal(hosts, 0)
    assert error.field == "--hosts"
    assert message in error.problem


@pytest.mark.parametrize("index", [2, -1])
def test_an_index_outside_the_list_is_refused(index: int) -> None:
    error = refusal("a:1,b:1", index)
    assert (
        str(error) == f"`--host-index` should be 0 to 1, as `--hosts` names 2 processes, got {index}. It counts from 0."
    )


def test_an_index_without_hosts_is_refused() -> None:
    assert refusal(None, 1).field == "--host-index"


def test_hosts_without_an_index_are_refused_unless_a_launcher_gives_it() -> None:
    error = refusal("a:1,b:1")
    assert error.field == "--host-index"
    assert "is missing. Give 0 on the first of the 2 machines" in error.problem


@pytest.mark.parametrize(
    "environ",
    [
        {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"},
        {"RANK": "1", "WORLD_SIZE": "2"},
        {"SLURM_PROCID": "1", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"},
        {"JOB_COMPLETION_INDEX": "1"},
    ],
)
def test_the_index_for_hosts_may_come_from_a_launcher(environ: dict[str, str]) -> None:
    assert hosts_of("a:1,b:1", **environ).index == 1


def test_fewer_hosts_than_processes_of_the_launcher_are_refused() -> None:
    error = refusal("a:1,b:1", OMPI_COMM_WORLD_RANK="1", OMPI_COMM_WORLD_SIZE="4")
    assert "names 2 addresses, but Open MPI started 4 processes" in str(error)


# TF_CONFIG.


def test_tf_config_counts_the_chief_before_the_workers() -> None:
    cluster = {"worker": ["b:1", "c:1"], "chief": ["a:1"]}
    second_worker = hosts_of(TF_CONFIG=tf_config({"type": "worker", "index": 1}, **cluster))
    assert second_worker == Hosts(("a:1", "b:1", "c:1"), 2, "TF_CONFIG")
    assert hosts_of(TF_CONFIG=tf_config({"type": "chief", "index": "0"}, **cluster)).is_chief


def test_tf_config_may_list_its_tasks_by_index() -> None:
    text = tf_config({"type": "worker", "index": 1}, worker={"1": "b:1", "0": "a:1"})
    assert hosts_of(TF_CONFIG=text).addresses == ("a:1", "b:1")


@pytest.mark.parametrize(
    "text", ["", "{}", '{"cluster": {}}', tf_config({}, worker=["a:1"]), tf_config({}, chief=["a:1"], worker=[])]
)
def test_a_tf_config_of_one_process_is_a_single_process(text: str) -> None:
    assert find(TF_CONFIG=text) is None


TWO = {"worker": ["a:1", "b:1"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "should be JSON"),
        ("[1]", "got [1]"),
        (tf_config({"type": "worker", "index": 2}, **TWO), "0 to 1 as task.index, got 2"),
        (tf_config({"type": "worker", "index": True}, **TWO), "got True"),
        (tf_config({"type": "worker"}, **TWO), "got None"),
        (tf_config({}, **TWO), "should have 'worker' as task.type, got None"),
        (tf_config({"type": "chief", "index": 0}, **TWO), "should have 'worker' as task.type, got 'chief'"),
        (tf_config({"type": "worker", "index": 0}, worker=["a:1", "a:1"]), "names a:1 twice"),
        (tf_config({"type": "worker", "index": 0}, worker=["a:1", "b"]), "has no port for 'b'"),
        (tf_config({"type": "worker", "index": 0}, worker="a:1"), "list of addresses"),
        (tf_config({"type": "worker", "index": 0}, worker={"1": "a:1"}), "list of addresses"),
        (tf_config({"type": "worker", "index": 0}, ps=["p:1"], **TWO), "synchronous training has no parameter servers"),
        (tf_config({"type": "evaluator", "index": 0}, **TWO), "every machine validates"),
        (tf_config({"type": "chief", "index": 0}, chief=["a:1", "b:1"]), "names 2 chiefs"),
        (tf_config({"type": "cheif", "index": 0}, cheif=["a:1"], **TWO), "Did you mean 'chief'?"),
    ],
)
def test_an_invalid_tf_config_is_refused_with_the_reason(text: str, message: str) -> None:
    error = refusal(TF_CONFIG=text)
    assert error.field == "TF_CONFIG"
    assert message in error.problem


# Slurm.


def test_tasks_of_a_node_have_consecutive_ports() -> None:
    hosts = hosts_of(**STEP)
    assert hosts.addresses == (f"gpu1:{PORT}", f"gpu1:{PORT + 1}", f"gpu2:{PORT}", f"gpu2:{PORT + 1}")
    assert hosts.source == "Slurm"


def test_each_slurm_task_gets_its_own_index_in_block_and_cyclic_order() -> None:
    block = [("0", "0", "0"), ("1", "0", "1"), ("2", "1", "0"), ("3", "1", "1")]
    cyclic = [("0", "0", "0"), ("1", "1", "0"), ("2", "0", "1"), ("3", "1", "1")]
    for tasks, expected in ((block, [0, 1, 2, 3]), (cyclic, [0, 2, 1, 3])):
        environs = [
            STEP | {"SLURM_PROCID": rank, "SLURM_NODEID": node, "SLURM_LOCALID": local_rank}
            for rank, node, local_rank in tasks
        ]
        assert [hosts_of(**environ).index for environ in environs] == expected


def test_an_sbatch_script_and_a_shell_of_salloc_are_single_processes() -> None:
    assert find(**SCRIPT) is None
    assert find(**{name: value for name, value in SCRIPT.items() if "ID" not in name}) is None
    # salloc with use_interactive_step runs its shell in a step of one task.
    assert find(**SCRIPT, SLURM_STEP_ID="4294967290", SLURM_STEP_NUM_TASKS="1") is None


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"SLURM_STEP_TASKS_PER_NODE": "2,1"}, "SLURM_STEP_TASKS_PER_NODE"),
        ({"SLURM_STEP_TASKS_PER_NODE": "4"}, "SLURM_STEP_TASKS_PER_NODE"),
        ({"SLURM_STEP_NODELIST": "gpu[1-2"}, "SLURM_STEP_NODELIST"),
        ({"SLURM_STEP_NODELIST": ""}, "SLURM_STEP_NODELIST"),
        ({"SLURM_JOB_ID": ""}, "SLURM_JOB_ID"),
        ({"SLURM_STEP_NUM_TASKS": "four"}, "SLURM_STEP_NUM_TASKS"),
    ],
)
def test_inconsistent_variables_of_slurm_are_refused(changed: dict[str, str], field: str) -> None:
    assert refusal(**(STEP | changed)).field == field


def test_incomplete_variables_of_torch_inside_a_slurm_step_are_ignored() -> None:
    assert hosts_of(**STEP, WORLD_SIZE="4", MASTER_ADDR="gpu1").source == "Slurm"


# Open MPI and torchrun; test_rendezvous.py tests that the processes meet.


def test_open_mpi_without_an_address_is_refused_with_the_cure() -> None:
    error = refusal(OMPI_COMM_WORLD_SIZE="2", OMPI_COMM_WORLD_RANK="0", **STEP)  # mpirun inside a step
    assert error.field == "MASTER_ADDR"
    assert "-x MASTER_ADDR=<first machine>" in error.problem


@pytest.mark.parametrize("missing", ["WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_incomplete_variables_of_torch_are_refused(missing: str) -> None:
    environ = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    del environ[missing]
    assert refusal(**environ).field == missing


def test_a_world_of_one_is_a_single_process() -> None:
    assert find(WORLD_SIZE="1", RANK="0", MASTER_ADDR="a", MASTER_PORT="1") is None
    assert find(WORLD_SIZE="1") is None
    assert find(OMPI_COMM_WORLD_SIZE="1", OMPI_COMM_WORLD_RANK="0") is None


@pytest.mark.parametrize(
    ("changed", "field"), [({"RANK": "2"}, "RANK"), ({"RANK": "-1"}, "RANK"), ({"MASTER_PORT": "x"}, "MASTER_PORT")]
)
def test_invalid_variables_of_torch_are_refused(changed: dict[str, str], field: str) -> None:
    environ = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    assert refusal(**(environ | changed)).field == field


# SageMaker.


def write_config(folder: Path, content: object) -> Path:
    path = folder / "resourceconfig.json"
    path.write_text(json.dumps(content))
    return path


def test_the_machines_of_sagemaker_are_read_from_its_file(tmp_path: Path) -> None:
    path = write_config(
        tmp_path,
        {"current_host": "algo-1", "hosts": ["algo-2", "algo-1", "algo-10"], "network_interface_name": "eth0"},
    )
    expected = Hosts(("algo-1:2222", "algo-10:2222", "algo-2:2222"), 0, "SageMaker")
    assert find_hosts(None, None, {}, resource_config=path) == expected


def test_the_machines_of_sagemaker_are_read_from_its_variables() -> None:
    hosts = hosts_of(SM_HOSTS='["algo-1", "algo-2"]', SM_CURRENT_HOST="algo-2")
    assert hosts == Hosts(("algo-1:2222", "algo-2:2222"), 1, "SageMaker")


def test_one_machine_of_sagemaker_is_a_single_process(tmp_path: Path) -> None:
    path = write_config(tmp_path, {"current_host": "algo-1", "hosts": ["algo-1"]})
    assert find_hosts(None, None, {}, resource_config=path) is None


@pytest.mark.parametrize("content", [{"hosts": ["a", "b"]}, {"current_host": "c", "hosts": ["a", "b"]}, {}, []])
def test_a_sagemaker_file_without_this_machine_is_refused(tmp_path: Path, content: object) -> None:
    path = write_config(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        find_hosts(None, None, {}, resource_config=path)
    assert caught.value.field == str(path)
