"""Documented commands that are not run where the others are, and why; most name the test that runs them."""

from dataclasses import dataclass

BOOTED = "tests/booted/test_documented_commands.py"


@dataclass(frozen=True)
class Elsewhere:
    """Why a command is not run with its page.

    Attributes:
        why: the reason.
        test: ``file::name`` of the test that runs it, or the same by another way; "" where none can.
        words: what of the command must stand in that test's file, where it doesn't take its text from here.
    """

    why: str
    test: str = ""
    words: tuple[str, ...] = ()


def _booted(name: str) -> Elsewhere:
    return Elsewhere("needs a machine with systemd, and changes it", f"{BOOTED}::{name}")


def _on_ray(name: str) -> Elsewhere:
    return Elsewhere(
        "needs a cluster or object storage", f"tests/test_cluster.py::test_{name}", ("--engine", "ray")
    )


_LONG = Elsewhere(
    "takes from minutes to days, and photographs that are not in the repository; `make documented` does less",
    "tests/test_commands_in_short.py::test_what_takes_long_does_what_it_says",
)
_SERVICE = _booted("test_a_service_is_installed_fed_and_looked_after_as_documented")
_JOURNAL = Elsewhere(
    "needs systemd's journal",
    "tests/booted/test_booted_service.py::test_the_journal_commands_of_the_documentation_find_what_they_say",
)
_INSTANCE = _booted("test_an_instance_is_made_as_documented")
_SIZING = Elsewhere(
    "needs figures of the reader's own, or changes this repository",
    "tests/test_sizing.py::test_the_readers_own_figures",
    ("sizing.py",),
)
_KUBERNETES = Elsewhere(
    "needs a Kubernetes cluster with KubeRay; a test has kubectl and a server that checks what it is sent",
    "tests/test_kubectl.py::test_kubectl_tries_and_applies_the_manifest_as_documented",
)
_DISPATCH = Elsewhere(
    "needs two daemons, or two hosts",
    "tests/test_several_daemons.py::test_a_dispatcher_and_two_daemons_do_each_picture_once",
    ("dispatch.py",),
)
_CONTAINER = Elsewhere(
    "needs podman and an image to build on",
    "tests/container/test_container.py::test_it_is_built_takes_pictures_and_drains_as_documented",
)

ELSEWHERE: dict[str, Elsewhere] = {
    "sudo .venv/bin/maskdrop service install --environment /opt/maskdrop --now": _SERVICE,
    'sudo usermod -a -G maskdrop "$USER"': _SERVICE,
    "sudo usermod -a -G maskdrop anna": _SERVICE,
    "sudo cp portrait.jpg /var/lib/maskdrop/inbox/": _SERVICE,
    "sudo ls /var/lib/maskdrop/outbox": _SERVICE,
    "systemctl status maskdrop": _SERVICE,
    "journalctl -u maskdrop -f": _SERVICE,
    "sudo systemctl reload maskdrop": _SERVICE,
    "journalctl -t maskdrop -o json MASKDROP_RESULT=quarantined"
    " | jq -r '.MASKDROP_PICTURE + \": \" + .MASKDROP_ERROR'": _JOURNAL,
    "journalctl -t maskdrop -o json MASKDROP_EVENT=saved -n 1000"
    " | jq -s 'map(.MASKDROP_MS | tonumber) | add / length'": _JOURNAL,
    "journalctl -t maskdrop -p warning --since today": _JOURNAL,
    "journalctl -x -t maskdrop MASKDROP_EVENT=worker_died": _JOURNAL,
    "sudo .venv/bin/maskdrop service install --instance passports --now": _INSTANCE,
    "sed 's#/var/lib/maskdrop/#&passports/#' /etc/maskdrop.toml | sudo tee /etc/maskdrop/passports.toml": (
        _INSTANCE
    ),
    "sudo install -d -o maskdrop -g maskdrop -m 0750 /var/lib/maskdrop/passports": _INSTANCE,
    "sudo install -d -o maskdrop -g maskdrop -m 2770 /var/lib/maskdrop/passports/inbox": _INSTANCE,
    "sudo systemctl enable --now maskdrop@passports": _INSTANCE,
    "sudo apt-get install debootstrap systemd-container btrfs-progs e2fsprogs mergerfs chromium prometheus"
    " jq man-db groff mandoc faketime user-mode-linux nfs-kernel-server nfs-common iproute2 kmod podman"
    " uidmap runc kubernetes-client": Elsewhere(
        "installs packages: a test has apt only say what it would do",
        "tests/test_commands_in_short.py::test_debian_has_what_is_to_be_installed",
    ),
    "sudo make test": Elsewhere("these tests"),
    "python bench/run.py --repeats 3 --only throughput --no-write": _LONG,
    "python bench/run.py --repeats 3 --only idle --no-write": _LONG,
    "python bench/run.py --repeats 3 --only batch workers threads --no-write": _LONG,
    "python bench/topology.py": _LONG,
    "python bench/batch.py": _LONG,
    "python bench/cluster.py": _LONG,
    "podman build --format docker -t maskdrop .": _CONTAINER,
    "mkdir -p ~/faces": _CONTAINER,
    'podman run -d --name maskdrop --stop-timeout 90 --user "$(id -u):$(id -g)" --userns keep-id'
    " --read-only --read-only-tmpfs=false --tmpfs /run/maskdrop:mode=1777 -v ~/faces:/pictures:Z"
    " maskdrop": _CONTAINER,
    "podman healthcheck run maskdrop": _CONTAINER,
    "podman stop maskdrop": _CONTAINER,
    "promtool test rules tests/alerts-test.yml": Elsewhere(
        "takes seconds, and a test of its own does it",
        "tests/test_monitoring.py::test_promtool_likes_the_alerts_and_they_fire_when_they_should",
        ("test", "rules", "alerts-test.yml"),
    ),
    "python bench/backlog.py": _LONG,
    "python bench/locate.py --pictures 30 --repeats 3": _LONG,
    "python bench/check.py ../shared/faces/images --many 100000": _LONG,
    "python bench/tries.py": _LONG,
    "python bench/tries_beside.py": _LONG,
    "python bench/tries_gpu.py": _LONG,
    "pip install 'maskdrop[ray]'": Elsewhere(
        "installs packages; tests have them, so pip has nothing to do",
        "tests/test_commands_in_short.py::test_extras_are_there_to_be_installed",
    ),
    "maskdrop batch photographs results --engine ray": _on_ray(
        "a_signal_drains_and_the_next_run_does_the_rest"
    ),
    "maskdrop batch photographs results --engine ray --address 10.0.0.1:6379": _on_ray(
        "two_nodes_give_what_this_machine_gives_and_then_only_what_is_new"
    ),
    "maskdrop batch s3://bucket/photographs s3://bucket/results --engine ray --address auto"
    " --quarantine s3://bucket/broken": _on_ray("from_and_to_object_storage_with_a_second_look"),
    "maskdrop batch 's3://bucket/2024-*/**/*.jpg' results --engine ray --endpoint http://minio:9000": _on_ray(
        "from_and_to_object_storage_with_a_second_look"
    ),
    "maskdrop batch list.txt results --engine ray": Elsewhere(
        "needs Ray to be started; what a list means is tested without",
        "tests/test_cluster_units.py::test_a_glob_and_a_list_mean_what_they_say",
        ("list",),
    ),
    "python bench/stage_costs.py PICTURES > own.json": _LONG,
    "python tools/sizing.py own.json": _SIZING,
    "python tools/sizing.py --write docs/scale.md": _SIZING,
    "kubectl apply --dry-run=server -f etc/kuberay.yaml": _KUBERNETES,
    "kubectl apply -f etc/kuberay.yaml": _KUBERNETES,
    "python3 dispatch.py /srv/faces/arriving /srv/faces/host-a/inbox /srv/faces/host-b/inbox"
    " --most 64": _DISPATCH,
    "python3 dispatch.py /srv/faces/host-b/inbox /srv/faces/host-a/inbox --once --most 1000000": _DISPATCH,
    "python tools/train.py FACES --out run2 --start-from first.safetensors"
    " --stages 256x33 384x18 512x5 --rate 1.2e-3": _LONG,
    "python tools/train.py FACES --out run3 --start-from second.safetensors"
    " --stages 384x12 448x3 --rate 1.2e-3 --hard 0.35 --seed 3": _LONG,
}


def commands_for(test: str) -> list[str]:
    """The commands that a test is to run, as the pages have them."""
    return [text for text, elsewhere in ELSEWHERE.items() if elsewhere.test.endswith(f"::{test}")]
